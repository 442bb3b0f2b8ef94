//! `runtime userns (--range FIRST:COUNT | --join FILE) --user FILE [--net FILE]`: makes a user namespace
//! over a range of the host's ids (or enters the one that a file names), and a network namespace that it
//! owns, and mounts each on a file, which keeps it.
//!
//! It must be made before the container: links are put into its network, and mounts are mapped by it.
//! A process of its own makes it because only one without threads can enter a user namespace.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::idmap::IdRange;

enum Users {
    New(IdRange),
    Of(PathBuf),
}

struct Options {
    users: Users,
    user: PathBuf,
    net: Option<PathBuf>,
}

/// What follows `userns` on the command line.
pub(crate) fn main(args: impl Iterator<Item = String>) -> Result<()> {
    make(&parse(args)?)
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options> {
    let (mut users, mut user, mut net) = (None, None, None);
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--range" => {
                let (first, count) = value.split_once(':').context("a range is FIRST:COUNT")?;
                let range = IdRange { first: first.parse()?, count: count.parse()? };
                users = Some(range).filter(|it| it.first > 0 && it.count > 0).map(Users::New);
            }
            "--join" => users = Some(Users::Of(value.into())),
            "--user" => user = Some(value.into()),
            "--net" => net = Some(value.into()),
            _ => bail!("unknown option {name}"),
        }
    }
    Ok(Options {
        users: users.context("--range is missing, or holds the host's root")?,
        user: user.context("--user is missing")?,
        net,
    })
}

fn make(options: &Options) -> Result<()> {
    let (mut ready, tell) = pipe()?;
    let (wait, _go) = pipe()?;
    // SAFETY: this process has one thread, so its child may do anything.
    let child = match unsafe { libc::fork() } {
        0 => {
            let made = become_empty(options, tell, wait);
            // SAFETY: ends the child without the parent's clean-up.
            unsafe { libc::_exit(i32::from(made.is_err())) }
        }
        pid => Pid::from_raw(pid).context("starting a process")?,
    };
    drop((tell, wait));
    let kept = keep(options, child, &mut ready);
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
    kept
}

fn pipe() -> Result<(fs::File, fs::File)> {
    let (read, write): (OwnedFd, OwnedFd) = rustix::pipe::pipe()?;
    Ok((read.into(), write.into()))
}

/// The child: enters new namespaces, says so, and lives until its parent has kept them.
fn become_empty(options: &Options, mut tell: fs::File, mut wait: fs::File) -> std::io::Result<()> {
    let mut flags = UnshareFlags::empty();
    match &options.users {
        Users::New(_) => flags |= UnshareFlags::NEWUSER,
        Users::Of(path) => {
            let namespace = fs::File::open(path)?;
            let kind = Some(LinkNameSpaceType::User);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?;
        }
    }
    if options.net.is_some() {
        flags |= UnshareFlags::NEWNET;
    }
    // SAFETY: no other thread shares anything with this one.
    unsafe { rustix::thread::unshare_unsafe(flags)? };
    tell.write_all(b"1")?;
    wait.read_exact(&mut [0])
}

fn keep(options: &Options, child: Pid, ready: &mut fs::File) -> Result<()> {
    let entered = ready.read_exact(&mut [0]);
    entered
        .context("this kernel gives no user namespace (see /proc/sys/user/max_user_namespaces)")?;
    let process = PathBuf::from(format!("/proc/{}", child.as_raw_nonzero()));
    if let Users::New(range) = &options.users {
        let line = format!("0 {} {}\n", range.first, range.count);
        for file in ["uid_map", "gid_map"] {
            fs::write(process.join(file), &line).with_context(|| format!("writing the {file}"))?;
        }
    }
    let namespaces = [("ns/user", Some(&options.user)), ("ns/net", options.net.as_ref())];
    for (namespace, target) in namespaces {
        let Some(target) = target else { continue };
        fs::File::create(target).with_context(|| format!("making {}", target.display()))?;
        rustix::mount::mount_bind(process.join(namespace), target)
            .with_context(|| format!("mounting a namespace at {}", target.display()))?;
    }
    Ok(())
}
