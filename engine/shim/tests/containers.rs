//! Real containers: what they run, say, get and leave behind.

mod support;

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use minke_engine_runtime::spec::{self, ExecSpec};
use minke_engine_shim::protocol::{Failure, Request, Response, Size, Status, Streams};
use minke_engine_shim::{cgroup, identity};
use support::{Client, Container, wait_until};

fn exec(args: &[&str]) -> ExecSpec {
    ExecSpec { args: args.iter().map(|a| a.to_string()).collect(), ..ExecSpec::default() }
}

fn exec_request(container: &Container, name: &str, spec: &ExecSpec) -> Request {
    Request::Exec {
        session: name.into(),
        process: container.process(spec),
        tty: spec.tty,
        streams: Streams::ALL,
        size: None,
    }
}

#[test]
fn output_goes_to_clients_and_log_and_the_exit_is_recorded() {
    let mut container = Container::new("echo out; echo err >&2; exit 7");
    container.open();
    let mut attached = container.client();
    attached.attach("");
    let mut control = container.client();
    assert!(matches!(control.ask(&Request::Start), Response::Started { pid } if pid > 0));
    let (out, err, exit) = attached.collect();
    assert_eq!((out.as_str(), err.as_str(), exit.code, exit.signal), ("out\n", "err\n", 7, 0));
    let record = container.finish();
    assert_eq!((record.exit, record.error.as_deref()), (exit, None));
    assert!(record.started_at <= exit.finished_at);
    assert_eq!(container.logged("stdout"), "out\n");
    assert_eq!(container.logged("stderr"), "err\n");
}

#[test]
fn nothing_is_left_behind() {
    let mut container = Container::new("sleep 1000 & read go; exit 0");
    container.config.stdin = true;
    container.run();
    let directories = cgroup::listed(&container.shim_dir());
    assert!(!directories.is_empty() && directories.iter().all(|directory| directory.exists()));
    let mut attached = container.client();
    attached.attach("");
    attached.send(&Request::Stdin(b"go\n".to_vec()));
    container.finish();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(container.dir.path().to_str().unwrap()), "{mounts}");
    assert!(directories.iter().all(|directory| !directory.exists()), "{directories:?}");
    let mut left: Vec<String> = fs::read_dir(container.shim_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["exit", "shim.conf", "shim.pid"]);
    let pid = fs::read_to_string(container.shim_dir().join("shim.pid")).unwrap();
    assert!(!identity::is_alive(&pid));
}

#[test]
fn signals_end_a_container_and_are_reported() {
    let mut container = Container::new("exec sleep 1000");
    container.run();
    let mut client = container.client();
    client.send(&Request::Wait { session: String::new() });
    let mut control = container.client();
    let kill = Request::Signal { session: String::new(), signal: 9 };
    assert_eq!(control.ask(&kill), Response::Ok);
    let Response::Exited(exit) = client.next() else { panic!("no exit") };
    assert_eq!((exit.code, exit.signal), (137, 9));
    assert_eq!(container.finish().exit, exit);
}

#[test]
fn a_missing_program_and_one_that_is_not_executable_are_told_apart() {
    for (program, failure, code, words) in [
        ("nosuch", Failure::NotFound, 127, "executable file not found in $PATH"),
        ("/no/such", Failure::NotFound, 127, "no such file or directory"),
        ("/etc/passwd", Failure::NotExecutable, 126, "permission denied"),
    ] {
        let mut container = Container::new("");
        container.spec.args = vec![program.into()];
        container.open();
        let answer = container.client().ask(&Request::Start);
        let Response::Failed { failure: said, message } = answer else { panic!("{answer:?}") };
        assert_eq!(said, failure);
        assert!(message.contains(words), "{message}");
        let record = container.finish();
        assert_eq!((record.exit.code, record.error), (code, Some(message)));
    }
}

#[test]
fn a_container_that_cannot_be_made_says_why() {
    let mut container = Container::new("true");
    container.spec.mounts = vec![spec::Mount {
        kind: spec::MountKind::Bind {
            own_ids: false,
            source: "/no/such/directory".into(),
            recursive: true,
            propagation: String::new(),
        },
        target: "/data".into(),
        readonly: false,
    }];
    container.open();
    let answer = container.client().ask(&Request::Start);
    let Response::Failed { failure, message } = answer else { panic!("{answer:?}") };
    assert_eq!(failure, Failure::Create);
    assert!(
        message.contains("/no/such/directory") && message.contains("No such file"),
        "{message}"
    );
    assert_eq!(container.finish().exit.code, 128);
    assert!(cgroup::listed(&container.shim_dir()).is_empty());
}

#[test]
fn a_log_that_cannot_be_opened_ends_the_shim_with_the_reason() {
    let mut container = Container::new("true");
    fs::create_dir(&container.config.log.as_ref().unwrap().path).unwrap();
    container.open();
    let mut control = container.client();
    let answer = control.ask(&Request::Start);
    let Response::Failed { failure, message } = answer else { panic!("{answer:?}") };
    assert_eq!(failure, Failure::Create);
    assert!(message.starts_with("opening the log "), "{message}");
    // The client stays: it is not for want of one that the shim ends.
    let record = container.finish();
    assert_eq!((record.exit.code, record.error), (128, Some(message)));
    assert!(!container.shim_dir().join("shim.sock").exists());
}

#[test]
fn a_shim_that_ends_leaves_the_socket_of_its_successor_alone() {
    let mut container = Container::new("true");
    container.open();
    let mut old = container.client();
    let socket = container.shim_dir().join("shim.sock");
    fs::remove_file(&socket).unwrap();
    let _successor = UnixListener::bind(&socket).unwrap();
    assert!(matches!(old.ask(&Request::Start), Response::Started { .. }));
    container.finish();
    assert!(socket.exists(), "it was the successor's");
}

#[test]
fn a_working_directory_that_the_image_lacks_is_made() {
    let mut container = Container::new("pwd");
    container.spec.cwd = "/wherever/../srv/app/".into();
    container.run();
    container.finish();
    assert_eq!(container.logged("stdout"), "/srv/app\n");
}

#[test]
fn a_terminal_has_the_size_that_was_asked_for_before_the_start() {
    let mut container = Container::new("stty size; read line; echo got $line; stty size");
    container.spec.tty = true;
    container.config.stdin = true;
    container.open();
    let mut client = container.client();
    let resize =
        |columns, rows| Request::Resize { session: String::new(), size: Size { columns, rows } };
    assert_eq!(client.ask(&resize(91, 17)), Response::Ok);
    client.attach("");
    assert!(matches!(container.client().ask(&Request::Start), Response::Started { .. }));
    client.read_until("17 91\r\n");
    assert_eq!(container.client().ask(&resize(80, 25)), Response::Ok);
    client.send(&Request::Stdin(b"word\n".to_vec()));
    let (out, _, exit) = client.collect();
    assert!(out.contains("got word\r\n25 80\r\n"), "{out:?}");
    assert_eq!(exit.code, 0);
    assert!(container.finish().error.is_none());
    assert!(container.logged("stdout").contains("17 91\r\n"));
}

#[test]
fn the_end_of_stdin_does_not_end_stdout() {
    let mut container = Container::new("cat; echo after");
    container.config.stdin = true;
    container.config.stdin_once = true;
    container.open();
    let mut client = container.client();
    client.attach("");
    // Before the start, behind it, and more than a pipe holds.
    client.send(&Request::Stdin(b"early\n".to_vec()));
    assert!(matches!(container.client().ask(&Request::Start), Response::Started { .. }));
    let block = vec![b'x'; 30_000];
    let mut sender = client.duplicate();
    let writer = std::thread::spawn(move || {
        for _ in 0..20 {
            sender.send(&Request::Stdin(block.clone()));
        }
        sender.send(&Request::StdinEnd);
    });
    let (out, _, exit) = client.collect();
    writer.join().unwrap();
    assert!(out.starts_with("early\n") && out.ends_with("after\n"));
    assert_eq!((out.len(), exit.code), (6 + 600_000 + 6, 0));
}

#[test]
fn execs_have_their_own_streams_codes_and_terminals() {
    let mut container = Container::new("exec sleep 1000");
    container.run();
    let mut client = container.client();
    let request =
        exec_request(&container, "one", &exec(&["sh", "-c", "echo o; echo e >&2; cat; exit 3"]));
    assert!(matches!(client.ask(&request), Response::Started { .. }));
    client.send(&Request::Stdin(b"in\n".to_vec()));
    client.send(&Request::StdinEnd);
    let (out, err, exit) = client.collect();
    assert_eq!((out.as_str(), err.as_str(), exit.code), ("o\nin\n", "e\n", 3));
    // The code is kept for whoever asks later, until it is forgotten.
    let mut other = container.client();
    let state = Request::State { session: "one".into() };
    let Response::State(known) = other.ask(&state) else { panic!("no state") };
    assert_eq!((known.status, known.exit), (Status::Exited, Some(exit)));
    assert_eq!(other.ask(&Request::Forget { session: "one".into() }), Response::Ok);
    assert!(matches!(other.ask(&state), Response::Failed { failure: Failure::NoSession, .. }));

    let mut terminal = exec(&["sh", "-c", "stty size; id -u; echo $HOME $A; pwd"]);
    terminal.tty = true;
    terminal.user = "user".into();
    terminal.env = vec!["A=b".into()];
    terminal.cwd = "/tmp".into();
    let Request::Exec { session, process, tty, streams, .. } =
        exec_request(&container, "two", &terminal)
    else {
        unreachable!()
    };
    let size = Some(Size { columns: 120, rows: 40 });
    let mut client = container.client();
    let request = Request::Exec { session, process, tty, streams, size };
    assert!(matches!(client.ask(&request), Response::Started { .. }));
    let (out, _, exit) = client.collect();
    assert_eq!((out.as_str(), exit.code), ("40 120\r\n1000\r\n/home/user b\r\n/tmp\r\n", 0));
    assert!(container.log().is_empty(), "the output of execs is not the container's");
}

#[test]
fn a_failing_exec_says_why_and_leaves_the_container_alone() {
    let mut container = Container::new("exec sleep 1000");
    container.run();
    let mut client = container.client();
    let answer = client.ask(&exec_request(&container, "x", &exec(&["nosuch"])));
    assert!(
        matches!(&answer, Response::Failed { failure: Failure::NotFound, message } if message.contains("not found in $PATH")),
        "{answer:?}"
    );
    // The same connection and the same name may be used again.
    assert!(matches!(
        client.ask(&exec_request(&container, "x", &exec(&["true"]))),
        Response::Started { .. }
    ));
    assert_eq!(client.collect().2.code, 0);
}

#[test]
fn execs_end_with_their_container() {
    let mut container = Container::new("exec sleep 1000");
    container.run();
    let mut client = container.client();
    let request = exec_request(&container, "x", &exec(&["sh", "-c", "echo up; sleep 1000"]));
    assert!(matches!(client.ask(&request), Response::Started { .. }));
    client.read_until("up\n");
    let kill = Request::Signal { session: String::new(), signal: 9 };
    assert_eq!(container.client().ask(&kill), Response::Ok);
    assert_eq!(client.collect().2.code, 137);
    container.finish();
}

#[test]
fn a_child_that_an_exec_leaves_does_not_hold_its_end_up() {
    let mut container = Container::new("exec sleep 1000");
    container.run();
    let mut client = container.client();
    let request = exec_request(&container, "x", &exec(&["sh", "-c", "sleep 1000 & echo done"]));
    assert!(matches!(client.ask(&request), Response::Started { .. }));
    let (out, _, exit) = client.collect();
    assert_eq!((out.as_str(), exit.code), ("done\n", 0));
}

#[test]
fn a_client_that_pauses_misses_nothing_and_nor_do_others() {
    let mut container = Container::new("seq 1 400000");
    container.open();
    let mut pausing = container.client();
    pausing.attach("");
    let mut reading = container.client();
    reading.attach("");
    assert!(matches!(container.client().ask(&Request::Start), Response::Started { .. }));
    let other = std::thread::spawn(move || reading.collect());
    // The container waits for it, however long.
    std::thread::sleep(Duration::from_secs(3));
    assert!(!other.is_finished());
    let (out, _, exit) = pausing.collect();
    assert_eq!((out.lines().count(), exit.code), (400_000, 0));
    assert_eq!(other.join().unwrap().0, out);
    assert!(container.finish().error.is_none());
    assert_eq!(container.logged("stdout"), out);
}

/// A container that waits for a client which reads nothing.
fn held_up() -> (Container, Client) {
    let mut container = Container::new("seq 1 400000");
    container.open();
    let mut client = container.client();
    client.attach("");
    assert!(matches!(container.client().ask(&Request::Start), Response::Started { .. }));
    std::thread::sleep(Duration::from_secs(1));
    (container, client)
}

#[test]
fn a_client_that_never_reads_holds_its_container_up_until_one_of_them_goes() {
    let (mut container, client) = held_up();
    drop(client);
    assert_eq!(container.finish().exit.code, 0);
    assert_eq!(container.logged("stdout").lines().count(), 400_000);

    let (mut container, _client) = held_up();
    let kill = Request::Signal { session: String::new(), signal: 9 };
    assert_eq!(container.client().ask(&kill), Response::Ok);
    assert_eq!(container.finish().exit.code, 137);
}

#[test]
fn logs_are_rotated_while_the_container_runs() {
    let mut container = Container::new("seq 1 5000");
    {
        let log = container.config.log.as_mut().unwrap();
        log.max_size = 20_000;
        log.max_files = 3;
    }
    container.run();
    container.finish();
    let newest = container.logged("stdout");
    assert!(newest.ends_with("5000\n"));
    let path = container.config.log.as_ref().unwrap().path.clone();
    for number in 1..=2 {
        let mut rotated = path.clone().into_os_string();
        rotated.push(format!(".{number}"));
        let length = fs::metadata(rotated).unwrap().len();
        assert!((19_000..=20_000).contains(&length), "{length}");
    }
    assert!(!path.with_extension("log.3").exists());
}

#[test]
fn limits_and_isolation_are_what_was_asked_for() {
    let mut container = Container::new(
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null
         cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null
         hostname; echo $$; id -u; id -G; touch /no 2>&1; echo hi > /dev/shm/x && cat /dev/shm/x
         echo 1 > /proc/sys/kernel/hostname 2>&1; cat /proc/keys; ls /proc/acpi 2>/dev/null
         mknod /tmp/disk b 8 0 && head -c1 /tmp/disk 2>&1; exit 0",
    );
    container.spec.resources.memory = Some(64 << 20);
    container.spec.resources.pids = Some(33);
    container.spec.readonly_rootfs = true;
    container.spec.group_add = vec!["extra".into()];
    container.run();
    container.finish();
    let out = container.logged("stdout");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..6], ["67108864", "33", "box", "1", "0", "0 2000"], "{out}");
    assert!(lines[6].contains("Read-only file system"), "{out}");
    assert_eq!(lines[7], "hi");
    assert!(
        container.logged("stderr").contains("Read-only") || out.contains("Read-only file system")
    );
}

#[test]
fn out_of_memory_is_said() {
    let mut container =
        Container::new("exec head -c 200000000 /dev/zero | tail -c 199999999 >/dev/null");
    container.spec.resources.memory = Some(16 << 20);
    container.spec.resources.memory_swap = Some(16 << 20);
    container.run();
    assert!(container.finish().exit.oom);
}

#[test]
fn a_killed_shim_is_noticed_and_its_container_can_be_removed() {
    let mut container = Container::new("exec sleep 1000");
    container.run();
    let mut waiting = container.client();
    waiting.send(&Request::Wait { session: String::new() });
    let pid_text = fs::read_to_string(container.shim_dir().join("shim.pid")).unwrap();
    assert!(identity::is_alive(&pid_text));
    container.kill_shim();
    assert_eq!(waiting.try_next(), None);
    assert!(!identity::is_alive(&pid_text));
    assert!(!container.shim_dir().join("exit").exists());
    let directories = cgroup::listed(&container.shim_dir());
    let pids: Vec<i32> = directories.iter().flat_map(|d| cgroup::pids(d)).collect();
    assert!(!pids.is_empty(), "the container outlived its shim until it is cleaned up");
    cgroup::kill_and_remove(&directories, Duration::from_secs(5)).unwrap();
    assert!(directories.iter().all(|directory| !directory.exists()));
    // And the same container can be run again in the same place.
    container.run();
    let kill = Request::Signal { session: String::new(), signal: 9 };
    assert_eq!(container.client().ask(&kill), Response::Ok);
    assert_eq!(container.finish().exit.code, 137);
}

#[test]
fn a_container_is_restarted_in_the_same_place_and_its_log_goes_on() {
    let mut container = Container::new("echo again");
    container.run();
    assert_eq!(container.finish().exit.code, 0);
    container.run();
    assert_eq!(container.finish().exit.code, 0);
    assert_eq!(container.logged("stdout"), "again\nagain\n");
}

#[test]
fn processes_begin_with_no_signal_ignored_or_blocked() {
    let command = ["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"];
    let mut container = Container::new("");
    container.spec.args = command.map(str::to_owned).to_vec();
    container.run();
    container.finish();
    let out = container.logged("stdout");
    assert_eq!(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    let mut container = Container::new("exec sleep 1000");
    container.run();
    let mut client = container.client();
    let process = exec(&command);
    assert!(matches!(
        client.ask(&exec_request(&container, "x", &process)),
        Response::Started { .. }
    ));
    assert_eq!(client.collect().0, out);
}

#[test]
fn a_user_can_write_to_its_own_stdout_by_name() {
    let mut container = Container::new("echo by name > /dev/stdout; id -u; id -G");
    container.spec.user = "user".into();
    container.run();
    assert_eq!(container.finish().exit.code, 0);
    assert_eq!(container.logged("stdout"), "by name\n1000\n1000 2000\n");
}

#[test]
fn bad_clients_are_refused_and_the_container_goes_on() {
    let mut container = Container::new("exec sleep 1000");
    container.run();
    let mut silent = Client::connect_raw(&container.shim_dir());
    silent.send_raw(&[0xff; 8]);
    assert!(matches!(silent.try_next(), Some(Response::Failed { .. }) | None));
    let mut early = Client::connect_raw(&container.shim_dir());
    early.send(&Request::Start);
    assert!(matches!(early.next(), Response::Failed { failure: Failure::Unsupported, .. }));
    let mut newer = Client::connect_raw(&container.shim_dir());
    newer.send(&Request::Hello { version: 2 });
    assert!(matches!(newer.next(), Response::Failed { failure: Failure::Unsupported, .. }));
    let state = container.client().ask(&Request::State { session: String::new() });
    assert!(matches!(state, Response::State(state) if state.status == Status::Running));
    assert!(matches!(container.client().ask(&Request::Start), Response::Failed { .. }));
}

#[test]
fn a_shim_whose_container_never_started_can_be_stopped() {
    let mut container = Container::new("true");
    container.open();
    let pid = container.shim_pid();
    assert_eq!(container.client().ask(&Request::Stop), Response::Ok);
    wait_until("the shim to end", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z"))
    });
    assert!(!container.shim_dir().join("exit").exists());
}
