//! The verbs of the helper, and how it reports.
//!
//! ```text
//! runtime run  --id ID --bundle DIR [--console SOCKET]
//! runtime exec --id ID --process FILE [--console SOCKET]
//! runtime userns …    (another module; it has no shim)
//! ```
//! The working directory is the shim's directory of the container: libcontainer's state is in `state/`,
//! the list of cgroups in
//! `cgroups`, the filter of system calls in `seccomp` (no file: no filter), limits of block devices in
//! `block.json` (no file: none), what is to be mounted for a user namespace in `stage.json` (no file:
//! there is none). Standard input, output and error become the container's, unless there is a console
//! socket. Descriptor 3 is a socket to the shim:
//!
//! * the helper writes `pid N\n` once the process exists, or `failed K text\n`, `K` a number of the
//!   shim protocol's failures;
//! * the process itself, just before it becomes the program, writes `ready\n` and waits for one byte;
//!   it too writes `failed K text\n` if that cannot be done;
//! * both may write `note text\n` before: what went wrong inside, the innermost first;
//! * the end of the stream without `failed` means that the program runs: the descriptor is closed by it.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{Process, Spec};
use libcontainer::syscall::syscall::SyscallType;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::device_filter;
use crate::executor::ProgramExecutor;
use crate::joining::{self, TaskFiles};
use crate::limits;
use crate::privileges;
use crate::seccomp::Program;
use crate::stage::Stage;

/// The descriptor that reports go to.
const STATUS_FD: i32 = 3;
/// Failure number for everything but a program that is missing or not executable.
const CREATE_FAILED: u8 = 3;

struct Options {
    verb: String,
    id: String,
    bundle: PathBuf,
    process: PathBuf,
    console: Option<PathBuf>,
}

/// Entry of `minke-device runtime …`; `args` are what follows `runtime`. Call it first thing in `main`,
/// before any thread is started.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    let mut args = args.peekable();
    if args.next_if(|verb| verb == "userns").is_some() {
        return match crate::user_namespace::main(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let status = match status_socket() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("minke-device runtime: {error:#}");
            return ExitCode::from(2);
        }
    };
    std::panic::set_hook(Box::new(|info| report(&failure_text(&info.to_string()))));
    let notes = crate::notes::Notes { status: status.as_raw_fd() };
    let _ = tracing::subscriber::set_global_default(notes);
    let outcome = parse(args).and_then(|options| perform(&options, &status));
    match outcome {
        Ok(pid) => {
            report(&format!("pid {pid}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&failure_text(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn failure_text(text: &str) -> String {
    format!("failed {CREATE_FAILED} {}\n", text.replace('\n', " "))
}

fn status_socket() -> Result<OwnedFd> {
    // SAFETY: nothing else in this process knows of descriptor 3; that it is open is checked next.
    let borrowed = unsafe { BorrowedFd::borrow_raw(STATUS_FD) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)
        .context("descriptor 3 must be a socket to the shim")?;
    // SAFETY: as above; from here on this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(STATUS_FD) })
}

/// Write a line to the shim. It may have gone: then nobody is left to tell.
fn report(line: &str) {
    // SAFETY: `main` keeps the descriptor open for the life of the process.
    let status = unsafe { BorrowedFd::borrow_raw(STATUS_FD) };
    let _ = rustix::net::send(status, line.as_bytes(), rustix::net::SendFlags::NOSIGNAL);
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options> {
    let verb = args.next().context("a verb is missing: run or exec")?;
    let mut options = Options {
        verb,
        id: String::new(),
        bundle: PathBuf::new(),
        process: PathBuf::new(),
        console: None,
    };
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--id" => options.id = value,
            "--bundle" => options.bundle = value.into(),
            "--process" => options.process = value.into(),
            "--console" => options.console = Some(value.into()),
            _ => bail!("unknown option {name}"),
        }
    }
    Ok(options)
}

fn perform(options: &Options, status: &OwnedFd) -> Result<i32> {
    fs::create_dir_all("state").context("making the state directory")?;
    let stage = read_stage()?;
    let users = match &stage {
        Some(stage) => Some(stage.users().context("opening the user namespace")?),
        None => None,
    };
    let is_exec = options.verb == "exec";
    let joined = users.as_ref().filter(|_| is_exec);
    let task_files = match is_exec {
        true => TaskFiles::open(&cgroups()?).context("opening the container's cgroups")?,
        false => None,
    };
    let executor = ProgramExecutor {
        status: status.as_raw_fd(),
        filter: filter()?,
        task_files: task_files.as_ref().map(TaskFiles::numbers).unwrap_or_default(),
        user_namespace: joined.map(AsRawFd::as_raw_fd),
    };
    let builder = ContainerBuilder::new(options.id.clone(), SyscallType::default())
        .with_executor(executor)
        .with_root_path("state")
        .context("finding the state directory")?
        .with_console_socket(options.console.clone())
        .validate_id()
        .context("checking the container id")?;
    match options.verb.as_str() {
        "run" => run(options, builder, stage.as_ref()),
        "exec" => {
            if task_files.is_some() {
                joining::hide_hierarchies().context("hiding the host's cgroups")?;
            }
            exec(options, builder, stage.as_ref())
        }
        verb => bail!("unknown verb {verb}"),
    }
}

/// The filter of system calls. One that cannot be read is not taken for none.
fn filter() -> Result<Option<Program>> {
    match fs::read("seccomp") {
        Ok(bytes) => Program::from_bytes(&bytes).map(Some).context("the seccomp filter is not one"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("reading the seccomp filter"),
    }
}

fn run(options: &Options, builder: ContainerBuilder, stage: Option<&Stage>) -> Result<i32> {
    let spec = Spec::load(options.bundle.join("config.json")).context("reading the bundle")?;
    if let (Some(process), Some(root)) = (spec.process(), spec.root()) {
        let first = stage.map_or(0, |stage| stage.first);
        if let Some(stage) = stage {
            stage.set().context("staging the container's file systems")?;
        }
        give_pipes_to_user(process, first);
        let make = || {
            make_working_directory(root.path(), process.cwd());
            Ok(())
        };
        privileges::as_owner(first, make).context("making the working directory")?;
    }
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let path = path.context("the bundle has no cgroup path")?;
    record_cgroups(path).context("recording the cgroups")?;
    let mut container = builder
        .as_init(&options.bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .context("creating the container")?;
    let pid = container.pid().context("the container has no process")?.as_raw();
    // No process of the container has become its program yet.
    let started = filter_devices(&spec)
        .context("applying the device rules")
        .and_then(|()| limit_block_devices())
        .and_then(|()| container.start().context("starting the container"));
    if started.is_err()
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        // It waits for its start, and holds the socket that the shim waits for.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    started.map(|()| pid)
}

fn exec(options: &Options, builder: ContainerBuilder, stage: Option<&Stage>) -> Result<i32> {
    let text = fs::read(&options.process).context("reading the process")?;
    let process: Process = serde_json::from_slice(&text).context("parsing the process")?;
    if let Some(stage) = stage {
        stage.pretend().context("leaving the host's mounts")?;
    }
    give_pipes_to_user(&process, stage.map_or(0, |stage| stage.first));
    let pid = builder
        .as_tenant()
        .with_process(Some(&options.process))
        .with_detach(true)
        .build()
        .context("entering the container")?;
    Ok(pid.as_raw())
}

/// What is to be mounted before the container is made.
fn read_stage() -> Result<Option<Stage>> {
    match fs::read("stage.json") {
        Ok(text) => serde_json::from_slice(&text).map(Some).context("parsing stage.json"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("reading stage.json"),
    }
}

/// A user other than root could not open `/dev/stdout` if the pipe behind it stayed root's.
fn give_pipes_to_user(process: &Process, first: u32) {
    let (uid, gid) = (process.user().uid(), process.user().gid());
    let (uid, gid) = (first.saturating_add(uid), first.saturating_add(gid));
    if uid == 0 && gid == 0 {
        return;
    }
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let is_pipe = rustix::fs::fstat(fd).is_ok_and(|s| {
            rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::Fifo
        });
        if is_pipe {
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            let _ = rustix::fs::fchown(fd, Some(uid), Some(gid));
        }
    }
}

/// Docker makes a working directory that an image lacks. Links cannot lead out of the root file system;
/// what cannot be made here (below a volume, say) is said when the container enters it.
fn make_working_directory(rootfs: &Path, cwd: &Path) {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(rootfs, flags, Mode::empty()) else { return };
    let mut path = PathBuf::new();
    for part in cwd.components().filter(|part| matches!(part, Component::Normal(_))) {
        let above = if path.as_os_str().is_empty() { Path::new(".") } else { path.as_path() };
        let Ok(parent) = rustix::fs::openat2(&root, above, flags, Mode::empty(), inside) else {
            return;
        };
        match rustix::fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => path.push(part),
            Err(_) => return,
        }
    }
}

/// The container's cgroups.
fn cgroups() -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("cgroups").context("reading the list of cgroups")?;
    Ok(text.lines().map(PathBuf::from).collect())
}

/// Limits of block devices are not libcontainer's.
fn limit_block_devices() -> Result<()> {
    let text = match fs::read("block.json") {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("reading block.json"),
    };
    let block = serde_json::from_slice(&text).context("parsing block.json")?;
    limits::set_block(&cgroups()?, &block).context("limiting block devices")
}

/// On version 2 libcontainer leaves devices to others.
fn filter_devices(spec: &Spec) -> Result<()> {
    let cgroups = cgroups()?;
    let unified = cgroups.iter().find(|path| path.join("cgroup.controllers").exists());
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_ref());
    if let (Some(directory), Some(rules)) = (unified, rules) {
        device_filter::apply(directory, rules)?;
    }
    Ok(())
}

/// Write the directories that libcontainer will use, one a line, before they exist: whatever happens
/// then, they can be found and removed.
fn record_cgroups(path: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut text = String::new();
    for directory in cgroup_directories(&mounts, path) {
        text.push_str(directory.to_str().context("a cgroup mount point is not UTF-8")?);
        text.push('\n');
    }
    fs::File::create("cgroups")?.write_all(text.as_bytes())?;
    Ok(())
}

/// Where `path` is in each hierarchy that holds containers: those of version 1 if there are any, else
/// that of version 2.
pub fn cgroup_directories(mountinfo: &str, path: &Path) -> Vec<PathBuf> {
    const CONTROLLERS: [&str; 12] = [
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "hugetlb",
        "memory",
        "pids",
        "perf_event",
        "blkio",
        "net_prio",
        "net_cls",
        "freezer",
    ];
    let (mut v1, mut v2) = (Vec::new(), Vec::new());
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4) else { continue };
        let mut after = after.split(' ');
        let (kind, options) = (after.next().unwrap_or(""), after.nth(1).unwrap_or(""));
        let below = path.strip_prefix("/").unwrap_or(path);
        let directory = Path::new(point).join(below);
        let has_controller = || options.split(',').any(|option| CONTROLLERS.contains(&option));
        match kind {
            "cgroup" if has_controller() && !v1.contains(&directory) => v1.push(directory),
            "cgroup2" => v2.push(directory),
            _ => {}
        }
    }
    if v1.is_empty() { v2 } else { v1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
37 31 0:34 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
38 31 0:35 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn each_controller_has_a_directory_on_version_1() {
        let found = cgroup_directories(HYBRID, Path::new("/minke/e/c"));
        assert_eq!(found, [PathBuf::from("/sys/fs/cgroup/cpu/minke/e/c")]);
    }

    #[test]
    fn there_is_one_directory_on_version_2() {
        let text =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = cgroup_directories(text, Path::new("/minke/e/c"));
        assert_eq!(found, [PathBuf::from("/sys/fs/cgroup/minke/e/c")]);
    }
}
