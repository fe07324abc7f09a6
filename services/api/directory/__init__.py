"""External directories: who may log in besides the local accounts, through plug-ins (`docs/directory.md`).

plugin.py             what a plug-in is: one interface, and how it says what went wrong
subject_information.py  what a directory tells about a user or group; why an account is not to be let in
pam.py                users of the host, by PAM
program.py            programs outside, which speak XML-RPC on their standard input and output
ldap.py               LDAP servers: `ldap_settings`, `ldap_client`, and what differs between directories:
                      `rfc_schema` (RFC 2307 and 4519), `ad_schema` (Active Directory)
host_directory.py     the plug-in of one host: switched on and off, started again with the service
coordinator.py        switching it on and off for hosts, as the coordinator does
logins.py, cache.py   a user's name and password to an identity
revalidation.py       sessions of users who have gone
hooks.py              the script `extauth-hook`
"""
