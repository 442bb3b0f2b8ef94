//! What the engine daemon and a container's shim say to each other, and the pure parts of the shim.
//!
//! A **shim** is one small process per running container. It starts the runtime helper, owns the
//! container's terminal or pipes, writes its log, serves attached clients, answers its DNS queries
//! and records its exit. It outlives the daemon. Its binary is `minke-shim`.
//!
//! # Life
//! The daemon makes a directory `D`, writes `D/shim.conf` ([`config::ShimConfig`]) and spawns
//! `minke-shim D` with stdout a pipe. The shim binds `D/shim.sock`, writes `ready\n` to stdout and
//! closes it (on failure: the reason on stderr, exit status 1). Then:
//!
//! ```text
//!   created --Start--> starting --ok--> running --init gone--> draining --> exited (record, end)
//!      |                   \--failed--> exited (record with the reason, end)
//!      \--Stop, or nobody connected for 10 s--> end, no record
//! ```
//! On exit, in this order: remaining processes of the container's cgroups are killed, output is
//! drained into log and clients, cgroups are removed, `D/exit` ([`exit::ExitRecord`]) is written and
//! fsynced, `Exited` is sent, and the shim ends once its clients have read (at most 5 s later).
//! A `D/exit` of an earlier run is removed when `Start` is accepted.
//!
//! # Files in `D`
//! | file | who writes | what |
//! |---|---|---|
//! | `shim.conf` | daemon | see [`config`] |
//! | `shim.sock` | shim | control socket, mode 0600; reach it through `/proc/self/fd/<fd of D>/shim.sock` as paths may be too long |
//! | `shim.pid` | shim | `<pid> <start time in clock ticks>`: identity for adoption ([`identity`]) |
//! | `pid` | runtime helper | pid of the container's init |
//! | `cgroups` | runtime helper | cgroup directories, one a line ([`cgroup`]): statistics, pause, clean-up |
//! | `exit` | shim | exit record |
//! | `state/` | runtime helper | libcontainer's own state |
//!
//! # Protocol, version 1
//! A byte stream on `shim.sock`. Each frame is a `u32` little-endian length, one byte of kind, and
//! a body; the length counts kind and body and is at most [`protocol::MAX_FRAME`]. The first frame of
//! a client is `Hello`; requests may be sent behind it without waiting. Answers come in the order of
//! the requests of that connection, except `Exited`, which comes when its time has come. So: one
//! connection per attach, per exec and per wait; any number of other requests on another.
//!
//! * A *session* is named by a string: `""` is the container's main process, others are execs.
//! * `Attach` and `Exec` bind the connection to a session: from then on `Stdout` and `Stderr` frames
//!   come (with a terminal only `Stdout`), `Stdin` and `StdinEnd` go, and last comes `Exited`, after
//!   all output. `Attach` is allowed before `Start`: nothing is missed.
//! * A client that does not read: its queue is bounded. While it is full the session is not read
//!   (back-pressure, as with a pipe), and goes on when the client reads or hangs up: nothing is lost.
//!   The end of a process waits for no client.
//! * `StdinEnd`, or the end of the connection, closes the stdin of an exec; of the main process only
//!   if `stdin_once` is set. Terminals are never closed by it.
//! * `Resize` before the terminal exists is kept and applied before the process runs.
//! * An exec's exit is kept until `Forget` (the oldest of more than 256 finished ones goes first).
//!
//! If a shim is killed (`kill -9`), its container has lost log and terminal: the daemon sees end of
//! file on its `Wait` connection without `Exited`, and must call [`cgroup::kill_and_remove`] on
//! `D/cgroups` and record exit code 137 itself. A container never outlives its shim.

pub mod cgroup;
pub mod config;
pub mod dns;
pub mod exit;
pub mod identity;
pub mod log;
pub mod names;
pub mod protocol;
pub mod record;
