//! A container made by hand: busybox root file system, bundle, shim, and a blocking client.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use minke_engine_runtime::spec::{self, ContainerSpec, ExecSpec, Facts};
use minke_engine_shim::cgroup;
use minke_engine_shim::config::{LogConfig, ShimConfig};
use minke_engine_shim::exit::ExitRecord;
use minke_engine_shim::protocol::{self, Exit, Request, Response, Streams};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what nobody announces.
const LOOKS: Duration = Duration::from_millis(2);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The helper program beside this test.
pub fn helper() -> PathBuf {
    let shim = Path::new(env!("CARGO_BIN_EXE_minke-shim"));
    shim.with_file_name("examples").join("runtime_helper")
}

/// A container before and while it runs. Dropping it kills and removes everything.
pub struct Container {
    pub dir: tempfile::TempDir,
    pub spec: ContainerSpec,
    pub config: ShimConfig,
    shim: Option<Child>,
}

impl Container {
    /// A container that will run this shell script.
    pub fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for name in ["bin", "proc", "dev", "sys", "etc", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "sleep", "echo", "stty", "true", "id", "nslookup", "wget", "httpd", "seq",
            "dd", "kill", "head", "wc", "ip", "nc", "env", "ls", "grep", "mkdir", "hostname",
            "touch", "mount", "mknod", "pwd", "ps", "tail", "chmod", "ping", "timeout",
        ] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
        fs::write(rootfs.join("etc/passwd"), passwd).unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
            .unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("t{}-{number}", std::process::id());
        let spec = ContainerSpec {
            id: id.clone(),
            rootfs,
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            hostname: "box".into(),
            cgroup_path: format!("/minke/test/{id}"),
            ..ContainerSpec::default()
        };
        let config = ShimConfig {
            id,
            runtime: helper(),
            bundle: dir.path().join("bundle"),
            log: Some(LogConfig {
                path: dir.path().join("c-json.log"),
                max_files: 1,
                ..LogConfig::default()
            }),
            ..ShimConfig::default()
        };
        Self { dir, spec, config, shim: None }
    }

    /// The shim's directory.
    pub fn shim_dir(&self) -> PathBuf {
        self.dir.path().join("shim")
    }

    /// Write the bundle and start the shim, not yet the container.
    pub fn open(&mut self) -> &mut Self {
        self.config.tty = self.spec.tty;
        fs::create_dir_all(&self.config.bundle).unwrap();
        fs::create_dir_all(self.shim_dir()).unwrap();
        let facts = Facts::gather(&self.spec).unwrap();
        let oci = spec::build(&self.spec, &facts).unwrap();
        oci.save(self.config.bundle.join("config.json")).unwrap();
        fs::write(self.shim_dir().join("shim.conf"), self.config.print().unwrap()).unwrap();
        let mut shim = Command::new(env!("CARGO_BIN_EXE_minke-shim"))
            .arg(self.shim_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        shim.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        if said != "ready\n" {
            let mut why = String::new();
            shim.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("the shim did not get ready: {why}");
        }
        self.shim = Some(shim);
        self
    }

    /// Open and start.
    pub fn run(&mut self) -> &mut Self {
        self.open();
        let mut client = self.client();
        client.send(&Request::Start);
        match client.next() {
            Response::Started { .. } => self,
            other => panic!("not started: {other:?}"),
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.shim_dir())
    }

    pub fn shim_pid(&self) -> u32 {
        self.shim.as_ref().unwrap().id()
    }

    /// An exec's process as JSON.
    pub fn process(&self, exec: &ExecSpec) -> Vec<u8> {
        let facts = Facts::gather(&self.spec).unwrap();
        serde_json::to_vec(&spec::process(exec, &self.spec, &facts).unwrap()).unwrap()
    }

    /// Wait for the end of the shim, and read the exit record.
    pub fn finish(&mut self) -> ExitRecord {
        let mut shim = self.shim.take().expect("a shim");
        let end = Instant::now() + PATIENCE;
        while shim.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the shim does not end");
            std::thread::sleep(LOOKS);
        }
        let text = fs::read_to_string(self.shim_dir().join("exit")).unwrap();
        ExitRecord::parse(&text).unwrap()
    }

    /// Kill the shim as the kernel might.
    pub fn kill_shim(&mut self) {
        let mut shim = self.shim.take().unwrap();
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    pub fn log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&self.config.log.as_ref().unwrap().path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect()
    }

    /// The text that one stream has logged.
    pub fn logged(&self, stream: &str) -> String {
        let of_stream = |line: &serde_json::Value| {
            (line["stream"] == stream).then(|| line["log"].as_str().unwrap().to_owned())
        };
        self.log().iter().filter_map(of_stream).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let directories = cgroup::listed(&self.shim_dir());
        let _ = cgroup::kill_and_remove(&directories, Duration::from_secs(5));
        if let Some(mut shim) = self.shim.take() {
            let _ = shim.kill();
            let _ = shim.wait();
        }
        let _ = cgroup::kill_and_remove(&directories, Duration::from_secs(5));
    }
}

/// A blocking client.
pub struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(shim_dir: &Path) -> Self {
        let mut client = Self::connect_raw(shim_dir);
        client.send(&Request::Hello { version: 1 });
        assert!(matches!(client.next(), Response::Hello { version: 1, .. }));
        client
    }

    /// A connection that has not said hello.
    pub fn connect_raw(shim_dir: &Path) -> Self {
        let directory = fs::File::open(shim_dir).unwrap();
        let path = format!("/proc/self/fd/{}/shim.sock", directory.as_raw_fd());
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// The same connection, for writing from another thread.
    pub fn duplicate(&self) -> Self {
        Self { stream: self.stream.try_clone().unwrap(), buffer: Vec::new() }
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn send(&mut self, request: &Request) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame, or `None` at the end of the stream.
    pub fn try_next(&mut self) -> Option<Response> {
        loop {
            if let Some((frame, length)) = protocol::next_frame(&self.buffer).unwrap() {
                let response = Response::decode(frame).unwrap();
                self.buffer.drain(..length);
                return Some(response);
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("waiting for a frame: {error}"),
            }
        }
    }

    pub fn next(&mut self) -> Response {
        self.try_next().expect("a frame, not the end of the stream")
    }

    pub fn ask(&mut self, request: &Request) -> Response {
        self.send(request);
        self.next()
    }

    pub fn attach(&mut self, session: &str) {
        let request = Request::Attach { session: session.into(), streams: Streams::ALL };
        assert_eq!(self.ask(&request), Response::Attached);
    }

    /// Everything up to the end of the session: stdout, stderr, exit.
    pub fn collect(&mut self) -> (String, String, Exit) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match self.next() {
                Response::Stdout(bytes) => out.extend(bytes),
                Response::Stderr(bytes) => err.extend(bytes),
                Response::Exited(exit) => {
                    let text = |bytes| String::from_utf8(bytes).unwrap();
                    return (text(out), text(err), exit);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Read output until it contains this.
    pub fn read_until(&mut self, wanted: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            match self.next() {
                Response::Stdout(bytes) | Response::Stderr(bytes) => {
                    seen.push_str(&String::from_utf8_lossy(&bytes));
                }
                other => panic!("{wanted:?} did not come, but {other:?}; seen: {seen:?}"),
            }
        }
        seen
    }
}

/// Wait for something to become true.
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(LOOKS);
    }
}
