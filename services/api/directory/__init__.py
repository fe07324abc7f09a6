"""External directories: who may log in besides the local accounts, through plug-ins (`docs/directory.md`).

plugin.py               what a plug-in is: one interface, and how it says what went wrong
subject_information.py  what a directory tells about a user or group; why an account is not to be let in
types.py                which plug-in serves which `external_auth_type`
pam.py                  users of the host, by PAM
program.py              programs outside, which speak XML-RPC on their standard input and output
ldap.py                 LDAP servers, by ldap_settings.py and ldap_client.py; how directories differ is in
                        rfc_schema.py (RFC 2307 and 4519) and ad_schema.py (Active Directory)
host_directory.py       the plug-in of one host, which follows the host's row; kept.py: what it keeps to itself
logins.py, cache.py     a user's name and password to an identity; membership.py: to roles and permissions
revalidation.py         sessions of users who have gone, what is known about subjects
hooks.py, pool_hooks.py the plug-in `extauth-hook`, on one host and on all
directory.py            all of it in one process
"""
