//! Tests that need the registry as a process of its own: this program starts itself with
//! `serve` as that process. It lists and runs its tests as the usual harness does.

#[path = "../registry/http.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
mod http;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use http::request;
use minke_cloud_blobs::{Digest, DirBlobs, DirOptions};
use minke_cloud_registry::{Auth, Registry, router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const TESTS: [(&str, fn()); 2] = [
    ("a_kill_during_a_push_leaves_nothing_torn", kill_during_push),
    ("a_large_layer_needs_no_memory", large_layer),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, dir] = arguments.as_slice()
        && serve == "serve"
    {
        serve_for_ever(Path::new(dir));
    }
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    for (name, test) in TESTS {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            test();
            println!("{name}: ok");
        }
    }
    ExitCode::SUCCESS
}

fn serve_for_ever(dir: &Path) -> ! {
    let blobs = DirBlobs::open(dir, &DirOptions::default()).unwrap();
    let router = router(Registry::new(blobs.into(), Auth::Open));
    Runtime::new().unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        axum::serve(listener, router).await.unwrap();
    });
    std::process::exit(0)
}

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child =
            command.arg("serve").arg(dir).stdout(Stdio::piped()).spawn().expect("starts itself");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap() }
    }

    /// Kilobytes of a line of `/proc/<pid>/status`.
    fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|number| (number * 31 % 253) as u8).collect()
}

/// Kills the server after each of many amounts of a push was sent; the next one must show
/// either nothing or the whole blob, keep what was whole before, and let the push succeed.
fn kill_during_push() {
    let dir = tempfile::tempdir().unwrap();
    let (before, blob) = (bytes(1000), bytes(4_000_000));
    let digest = Digest::of(&blob);
    let runtime = Runtime::new().unwrap();
    let upload = |digest: &Digest| format!("/v2/a/blobs/uploads/?digest={digest}");
    {
        let server = Process::start(dir.path());
        let push = request("POST", &upload(&Digest::of(&before))).body(&before[..]);
        assert_eq!(runtime.block_on(push.send(server.address)).status, 201);
    }
    let path = format!("/v2/a/blobs/{digest}");
    let (mut seen_whole, last) = (0, 30);
    for step in 0..=last {
        let sent = blob.len() * step.min(8) as usize / 8;
        let server = Process::start(dir.path());
        let socket = runtime.block_on(push_part(server.address, &upload(&digest), &blob, sent));
        // Once everything is sent, later and later into verifying, syncing and publishing.
        std::thread::sleep(Duration::from_millis(2) * (step.max(8) - 8));
        drop(server);
        drop(socket);

        let server = Process::start(dir.path());
        let read = runtime.block_on(request("GET", &path).send(server.address));
        assert!(read.status == 404 || read.body == blob, "after {sent} bytes: {}", read.status);
        if read.status == 200 {
            seen_whole += 1;
            let gone = runtime.block_on(request("DELETE", &path).send(server.address));
            assert_eq!(gone.status, 202);
        }
        let kept = format!("/v2/a/blobs/{}", Digest::of(&before));
        assert!(runtime.block_on(request("GET", &kept).send(server.address)).body == before);
        assert_eq!(fs::read_dir(dir.path().join("trash")).unwrap().count(), 0);
    }
    println!("the blob was whole after {seen_whole} of {} kills", last + 1);
    let server = Process::start(dir.path());
    let push = request("POST", &upload(&digest)).body(&blob[..]);
    assert_eq!(runtime.block_on(push.send(server.address)).status, 201);
    assert!(runtime.block_on(request("GET", &path).send(server.address)).body == blob);
}

/// Sends a part of a push and returns; the caller kills the server at that moment.
async fn push_part(server: SocketAddr, path: &str, blob: &[u8], sent: usize) -> TcpStream {
    let mut socket = TcpStream::connect(server).await.unwrap();
    let length = blob.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&blob[..sent]).await.unwrap();
    socket
}

/// A layer of a gigabyte in and out; the process must not grow with it.
fn large_layer() {
    const CHUNK: usize = 1 << 20;
    const COUNT: usize = 1024;
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path());
    let runtime = Runtime::new().unwrap();
    let small = request("POST", &format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"x")));
    assert_eq!(runtime.block_on(small.body("x").send(server.address)).status, 201);
    let before = server.memory("VmHWM");
    runtime.block_on(async {
        let begun = request("POST", "/v2/a/blobs/uploads/").send(server.address).await;
        let upload = begun.header("location").unwrap().to_owned();
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let length = CHUNK * COUNT;
        let head = format!("PATCH {upload} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n");
        socket.write_all((head + "connection: close\r\n\r\n").as_bytes()).await.unwrap();
        let chunk = bytes(CHUNK);
        for _ in 0..COUNT {
            socket.write_all(&chunk).await.unwrap();
        }
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        let lie = Digest::of(b"something else");
        let finish = request("PUT", &format!("{upload}?digest={lie}")).send(server.address).await;
        assert_eq!(finish.code(), "DIGEST_INVALID");
    });
    let grown = server.memory("VmHWM") - before;
    println!("the process grew by {grown} kB for a layer of {} kB", CHUNK * COUNT / 1024);
    assert!(grown < 24 * 1024, "{grown} kB");
}
