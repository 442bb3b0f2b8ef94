//! The worker's life: started again when it dies, stopped with the server, also when that is killed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use minke_cloud_builder::{Worker, WorkerOptions};

/// A program that takes any arguments and stays until it is told to go.
fn program(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("engine.sh");
    std::fs::write(
        &path,
        "#!/bin/sh\necho \"$@\" > \"$(dirname \"$0\")/arguments\"\nexec sleep 1000\n",
    )
    .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn options(dir: &Path) -> WorkerOptions {
    WorkerOptions {
        device_binary: program(dir),
        data: dir.join("data"),
        socket: dir.join("run/engine.sock"),
        registry_mirror: Some("http://mirror:1".into()),
        insecure_registries: vec!["a:1".into(), "b:2".into()],
    }
}

fn alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}

async fn wait<T>(what: &str, probe: impl Fn() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_worker_that_dies_is_started_again_and_a_stopped_one_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::spawn(options(dir.path())).await.unwrap();
    let first = wait("the engine has no pid", || worker.pid()).await;
    let arguments = wait("no arguments", || {
        let text = std::fs::read_to_string(dir.path().join("arguments")).ok()?;
        text.ends_with('\n').then_some(text)
    });
    let base = dir.path().display();
    assert_eq!(
        arguments.await.trim(),
        format!(
            "engine --data {base}/data --socket {base}/run/engine.sock --build-worker \
             --userns-remap default --registry-mirror http://mirror:1 --insecure-registry a:1 --insecure-registry b:2"
        )
    );
    let pid = rustix::process::Pid::from_raw(first as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let second =
        wait("it was not started again", || worker.pid().filter(|pid| *pid != first)).await;
    assert!(alive(second));
    worker.stop().await;
    assert!(!alive(second));
    assert_eq!(worker.pid(), None);
}

#[tokio::test]
async fn a_dropped_worker_stops_its_engine() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::spawn(options(dir.path())).await.unwrap();
    let pid = wait("the engine has no pid", || worker.pid()).await;
    drop(worker);
    wait("the engine goes on", || (!alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn an_engine_that_never_answers_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let worker = Worker::spawn(options(dir.path())).await.unwrap();
    let error = worker.ready(Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("did not answer within 50ms"), "{error}");
    worker.stop().await;
}

const MARK: &str = "MINKE_BUILDER_TEST_DIR";

/// A killed server runs no code of its own: the kernel has to end the engine. The server here is this
/// test program, run once more.
#[test]
fn an_engine_does_not_outlive_a_killed_server() {
    if let Some(dir) = std::env::var_os(MARK) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let worker = Worker::spawn(options(Path::new(&dir))).await.unwrap();
            let pid = wait("the engine has no pid", || worker.pid()).await;
            std::fs::write(Path::new(&dir).join("pid"), format!("{pid}\n")).unwrap();
            std::future::pending::<()>().await;
        });
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_engine_does_not_outlive_a_killed_server", "--nocapture"])
        .env(MARK, dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let pid: u32 = wait("the server's engine did not start", || {
            let text = std::fs::read_to_string(dir.path().join("pid")).ok()?;
            text.strip_suffix('\n')?.parse().ok()
        })
        .await;
        assert!(alive(pid));
        server.kill().unwrap();
        server.wait().unwrap();
        wait("the engine outlived its server", || (!alive(pid)).then_some(())).await;
    });
}
