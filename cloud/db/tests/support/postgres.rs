//! A PostgreSQL server of one test: unix socket only, no password, stopped by its process id.
//!
//! Its language is English by ICU, so that whatever forgets to compare by bytes is found out.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nobody: PostgreSQL refuses to run as root.
const USER: u32 = 65_534;

pub struct Server {
    process: Child,
    directory: PathBuf,
}

impl Server {
    pub fn start(parent: &Path) -> Self {
        let directory = parent.join("postgres");
        let data = directory.join("data");
        std::fs::create_dir(&directory).expect("a directory for PostgreSQL");
        if is_root() {
            chown(&directory, Some(USER), Some(USER)).expect("chown");
            // Temporary directories are for their owner only.
            let open =
                <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o711);
            std::fs::set_permissions(parent, open).expect("chmod");
        }
        let made = command("initdb")
            .arg("--pgdata")
            .arg(&data)
            .args(["--username=minke", "--auth=trust", "--no-sync", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"])
            .stdout(Stdio::null())
            .status()
            .expect("initdb runs");
        assert!(made.success(), "initdb failed");
        let log = std::fs::File::create(parent.join("postgres.log")).expect("a log");
        let process = command("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&directory)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=40"])
            .args(["-c", "shared_buffers=16MB", "-c", "jit=off"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        let mut server = Self { process, directory };
        server.wait(&parent.join("postgres.log"));
        server
    }

    fn wait(&mut self, log: &Path) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            if said.contains("database system is ready to accept connections") {
                return;
            }
            let ended = self.process.try_wait().expect("waiting for postgres");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "PostgreSQL did not start: {said}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn url(&self) -> String {
        let socket = self.directory.display().to_string().replace('/', "%2F");
        format!("postgres://minke@{socket}/postgres")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = self.process.id().to_string();
        // An immediate shutdown: its files go with the test.
        let asked = Command::new("kill").args(["-QUIT", &id]).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout == b"0\n"
}

fn command(program: &str) -> Command {
    let program = binary(program);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
    command.args([user.as_str(), group.as_str(), "--clear-groups", "--pdeathsig=QUIT"]);
    command.arg(program).current_dir("/");
    command
}

/// Debian keeps the server's programs out of the search path, by version.
fn binary(program: &str) -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    debian.sort();
    let places = std::env::split_paths(&paths).chain(debian.into_iter().rev());
    let mut found = places.map(|place| place.join(program)).filter(|path| path.exists());
    found.next().unwrap_or_else(|| panic!("{program} is not installed: apt-get install postgresql"))
}
