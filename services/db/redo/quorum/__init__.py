"""The `quorum` redo log: commits are messages in a RabbitMQ quorum queue, which survives the coordinator's machine.

A message has no place in the queue that could be relied on: what was delivered and not acknowledged comes back in
another order. So everything that counts is numbered, and what is said about order is said by numbers.

| message | says |
|---|---|
| claim | somebody is about to take the log over |
| begin | somebody has: he is the writer, and of all earlier commits those up to a number count |
| commits | some commits, or a part of them |
| rows | a piece of all rows, written by a checkpoint's child |
| finish | the rows of that checkpoint count; commits up to a number are no longer needed |
| mark | a reader's own, to know when it has seen all |

**One writer.** Each writer publishes through an exchange of its own, bound to the queue; its name has the term. Who
takes over deletes the exchanges of all earlier terms, then reads the queue to its end, and only then says `begin`. A
commit is acknowledged when the broker has confirmed it *and* the writer's exchange was still there afterwards: so it
was in the queue before anybody who took over began to read. What an old writer has under way when its exchange goes is
either returned to it, or it lies in the queue behind the number up to which its commits count. Nobody reads while
another does (the queue has a single active consumer), so of two that take over at once the second finds the first. A
reader ends with its channel and is never cancelled: a cancelled one keeps what it holds for a moment in which the next
reader would find the queue without it.

**Unknown outcomes.** When a confirm does not come, the message may be in the queue or come later. The writer then drops
the connection, and begins anew with the number that it knows of: messages beyond it do not count, whenever they come.
Where it cannot, nobody knows (`Uncertain`): the process starts anew, and whoever recovers the log decides, once and for
all, by its own `begin`: what it found counts.

**Whose it is.** The primary's, wherever that is. A process that only stands by has read it, and keeps what it follows
in its own journal. Who takes over, and finds commits that it has not, starts anew and has them.

**What it cannot do.** An operator who deletes the queue, or a policy that drops messages from it (`max-length`,
`delivery-limit`, TTL), takes commits away. Missing numbers are noticed: the writer that still runs writes all rows
anew before it acknowledges anything else; a start from such a log is refused, with its text saying what is missing.
"""
