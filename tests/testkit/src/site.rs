//! A server, its base images and its devices, on a bridge of their own.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::base_images;
use crate::binaries::Binaries;
use crate::bridge::Bridge;
use crate::cli::Cli;
use crate::disk;
use crate::ledger::{Entry, Ledger};
use crate::memory::{ProcessMemory, memory};
use crate::process::{Process, end_by_pid, end_by_words};

/// Who the site's own command line is logged in as.
const EMAIL: &str = "admin@minke.local";
const READY: Duration = Duration::from_secs(60);

/// What a site is made of.
#[derive(Debug)]
pub struct Options {
    /// Everything it keeps lies here.
    pub folder: PathBuf,
    /// What it runs.
    pub binaries: Binaries,
    /// The name of its bridge, at most 15 characters.
    pub bridge: String,
    /// The server's port on the bridge; 0 chooses a free one.
    pub port: u16,
    /// Where base images are kept from one site to the next.
    pub base_images: PathBuf,
}

/// A running site. Dropping it removes it from the machine, unless it was [left](Site::leave).
#[derive(Debug)]
pub struct Site {
    options: Options,
    ledger: Ledger,
    bridge: Bridge,
    registry: Option<Process>,
    registry_address: String,
    cloud: Option<Process>,
    url: String,
    password: String,
    cli: Cli,
    /// Devices by name.
    devices: Vec<Device>,
    left: bool,
}

/// A virtual device of a site.
#[derive(Debug)]
pub struct Device {
    /// The name that it was started with.
    pub name: String,
    /// Its uuid.
    pub uuid: String,
    /// Its address on the site's bridge.
    pub address: String,
    /// The socket of its engine, reachable from outside.
    pub engine_socket: String,
    /// The address of its own API.
    pub supervisor: String,
    process: Option<Process>,
}

#[derive(Deserialize)]
struct Ready {
    uuid: String,
    address: String,
    engine_socket: String,
    supervisor: String,
}

impl Site {
    /// Starts registry and server and logs in. `say` hears what is being done.
    pub fn start(options: Options, say: &mut dyn FnMut(&str)) -> Result<Site> {
        for folder in ["logs", "registry", "cloud", "cli", "devices"] {
            let path = options.folder.join(folder);
            std::fs::create_dir_all(&path)
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        let mut ledger = Ledger::open(&options.folder)?;
        let bridge = Bridge::create(&options.bridge, &mut ledger)?;
        let cli = Cli::new(options.binaries.path("minke"), &options.folder.join("cli"));
        // From here on, a failure drops the site, which removes what there is of it.
        let mut site = Site {
            bridge,
            ledger,
            registry: None,
            registry_address: String::new(),
            cloud: None,
            url: String::new(),
            password: random_password()?,
            cli,
            devices: Vec::new(),
            left: false,
            options,
        };
        say("starting the registry of base images");
        site.start_registry()?;
        base_images::build(&site.options.base_images, &site.registry_address, say)?;
        say("starting the server");
        site.start_cloud()?;
        let (url, password) = (site.url.clone(), site.password.clone());
        site.cli.run(&["login", &url, "--email", EMAIL, "--password", &password])?;
        Ok(site)
    }

    fn start_registry(&mut self) -> Result<()> {
        let mut command = Command::new(self.options.binaries.path("minke-cloud"));
        command
            .args([
                "registry",
                "--open",
                "--listen",
                &format!("{}:0", self.bridge.address),
                "--data",
            ])
            .arg(self.options.folder.join("registry"));
        let mut process = self.spawn("registry", command)?;
        let url = process.wait_for_line("the registry", READY, listening)?;
        self.registry_address = url.trim_start_matches("http://").to_owned();
        self.registry = Some(process);
        Ok(())
    }

    /// Starts the server: on the port that it had before, if it ran already.
    pub fn start_cloud(&mut self) -> Result<()> {
        let data = self.options.folder.join("cloud");
        let listen = match self.url.strip_prefix("http://") {
            Some(address) => address.to_owned(),
            None => format!("{}:{}", self.bridge.address, self.options.port),
        };
        self.ledger.add(Entry::Engine { data: data.join("builder/engine") })?;
        let mut command = Command::new(self.options.binaries.path("minke-cloud"));
        command
            .arg("serve")
            .arg("--data")
            .arg(&data)
            .args(["--listen", &listen])
            .args(["--registry-mirror", &format!("http://{}", self.registry_address)])
            .args(["--insecure-registry", &self.registry_address])
            .env("MINKE_ADMIN_EMAIL", EMAIL)
            .env("MINKE_ADMIN_PASSWORD", &self.password);
        let mut process = self.spawn("cloud", command)?;
        self.url = process.wait_for_line("the server", READY, listening)?;
        self.cloud = Some(process);
        Ok(())
    }

    /// Ends the server in an orderly way.
    pub fn stop_cloud(&mut self) -> Result<()> {
        self.cloud.take().context("the server is not running")?.stop(&mut self.ledger)
    }

    /// Ends the server as a crash would.
    pub fn kill_cloud(&mut self) -> Result<()> {
        self.cloud.take().context("the server is not running")?.kill(&mut self.ledger)
    }

    /// Gives the server another address. It must not be running.
    pub fn move_cloud(&mut self) {
        self.url.clear();
    }

    fn spawn(&mut self, name: &str, command: Command) -> Result<Process> {
        let log = self.options.folder.join("logs").join(format!("{name}.log"));
        Process::start(name, command, &log, &mut self.ledger)
    }

    /// Starts a virtual device that joins `fleet`, provisioned from a config.json.
    pub fn add_device(&mut self, fleet: &str, name: &str) -> Result<&Device> {
        let data = self.device_data(name);
        std::fs::create_dir_all(&data)
            .with_context(|| format!("cannot make {}", data.display()))?;
        let config = data.join("config.json");
        let path = config.to_str().context("the site's folder is not UTF-8")?;
        self.cli.run(&["config", "generate", "--fleet", fleet, "--output", path])?;
        self.devices.push(Device {
            name: name.to_owned(),
            uuid: String::new(),
            address: String::new(),
            engine_socket: String::new(),
            supervisor: String::new(),
            process: None,
        });
        self.start_device(name)?;
        self.device(name)
    }

    /// Starts a device that was added before.
    pub fn start_device(&mut self, name: &str) -> Result<()> {
        let data = self.device_data(name);
        let mut command = Command::new(self.options.binaries.path("minke-device"));
        command
            .arg("virtual")
            .arg("--config")
            .arg(data.join("config.json"))
            .arg("--data")
            .arg(&data)
            .args(["--name", name, "--bridge", &self.bridge.name]);
        self.ledger.add(Entry::Device { data })?;
        let mut process = self.spawn(&format!("device-{name}"), command)?;
        let ready: Ready = process
            .wait_for_line("the device", READY, |line| serde_json::from_str(line.trim()).ok())?;
        let device =
            self.devices.iter_mut().find(|it| it.name == name).context("no such device")?;
        device.uuid = ready.uuid;
        device.address = ready.address;
        device.engine_socket = ready.engine_socket;
        device.supervisor = ready.supervisor;
        device.process = Some(process);
        Ok(())
    }

    /// Switches a device off.
    pub fn stop_device(&mut self, name: &str) -> Result<()> {
        let device =
            self.devices.iter_mut().find(|it| it.name == name).context("no such device")?;
        device.process.take().context("the device is not running")?.stop(&mut self.ledger)
    }

    /// The folder that holds everything of a device.
    pub fn device_data(&self, name: &str) -> PathBuf {
        self.options.folder.join("devices").join(name)
    }

    /// Puts a folder of the site (`cloud`, `devices/NAME`) on a disk of its own with so many
    /// megabytes. What was in the folder is out of sight from then on.
    pub fn small_disk(&mut self, folder: &str, megabytes: u32) -> Result<PathBuf> {
        let path = self.options.folder.join(folder);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let image = self.options.folder.join(folder.replace('/', "-") + ".ext4");
        self.ledger.add(Entry::Disk { path: path.clone() })?;
        disk::mount(&path, &image, megabytes)?;
        Ok(path)
    }

    /// The device called `name`.
    pub fn device(&self, name: &str) -> Result<&Device> {
        self.devices.iter().find(|it| it.name == name).with_context(|| format!("no device {name}"))
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The administrator's address and password.
    pub fn login(&self) -> (&str, &str) {
        (EMAIL, &self.password)
    }

    /// The command line that is logged in as the administrator.
    pub fn cli(&self) -> &Cli {
        &self.cli
    }

    /// The name of its bridge.
    pub fn bridge(&self) -> &str {
        &self.bridge.name
    }

    /// The server's process.
    pub fn cloud_pid(&self) -> Result<i32> {
        Ok(self.cloud.as_ref().context("the server is not running")?.pid())
    }

    /// The outermost process of a device.
    pub fn device_pid(&self, name: &str) -> Result<i32> {
        let process = self.device(name)?.process.as_ref();
        Ok(process.context("the device is not running")?.pid())
    }

    /// What the site runs.
    pub fn binaries(&self) -> &Binaries {
        &self.options.binaries
    }

    /// How many bytes the machine has sent to devices so far.
    pub fn bytes_to_devices(&self) -> Result<u64> {
        self.bridge.bytes_sent()
    }

    /// Where the processes' logs are.
    pub fn logs(&self) -> PathBuf {
        self.options.folder.join("logs")
    }

    /// What the build worker, which shares the machine's own network, said of a firewall that drops its
    /// traffic and that of devices, with the way out.
    pub fn firewall_note(&self) -> Option<String> {
        let log = std::fs::read_to_string(self.logs().join("cloud.log")).ok()?;
        let note = |line: &str| Some(line[line.find("this host's firewall drops")?..].to_owned());
        log.lines().find_map(note)
    }

    /// The memory of the site's processes, by program.
    pub fn memory(&self) -> SiteMemory {
        let pid = |process: &Option<Process>| process.iter().map(Process::pid).collect::<Vec<_>>();
        let devices: Vec<i32> = self.devices.iter().flat_map(|it| pid(&it.process)).collect();
        let server = [pid(&self.cloud), pid(&self.registry)].concat();
        SiteMemory { server: memory(&server), devices: memory(&devices) }
    }

    /// Leaves everything running for [`Site::clean`] to remove later.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// Removes everything and says what could not be removed.
    pub fn stop(mut self) -> Result<()> {
        self.left = true;
        self.reap();
        Site::clean(&self.options.folder)
    }

    /// Ends processes that are children of this one, newest first, so that none stays a zombie.
    fn reap(&mut self) {
        let devices = self.devices.iter_mut().rev().filter_map(|it| it.process.take());
        let servers = [self.cloud.take(), self.registry.take()].into_iter().flatten();
        for process in devices.chain(servers).collect::<Vec<_>>() {
            if let Err(error) = process.stop(&mut self.ledger) {
                eprintln!("{error:#}");
            }
        }
    }

    /// Removes everything that a site in `folder` has made on this machine, also after a crash.
    pub fn clean(folder: &Path) -> Result<()> {
        let binaries = Binaries::beside_this_program();
        let mut ledger = Ledger::open(folder)?;
        let mut failures = Vec::new();
        for entry in ledger.newest_first() {
            match remove(&entry, binaries.as_ref().ok()) {
                Ok(()) => ledger.strike(&entry)?,
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        if !failures.is_empty() {
            bail!("not everything could be removed: {}", failures.join("; "));
        }
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        self.reap();
        if let Err(error) = Site::clean(&self.options.folder) {
            eprintln!("{error:#}");
        }
    }
}

/// The memory of a site's processes.
#[derive(Debug)]
pub struct SiteMemory {
    /// The server with its build worker, and the registry of base images beside it.
    pub server: Vec<ProcessMemory>,
    /// All devices.
    pub devices: Vec<ProcessMemory>,
}

fn remove(entry: &Entry, binaries: Option<&Binaries>) -> Result<()> {
    match entry {
        Entry::Process { pid, start, .. } => end_by_pid(*pid, *start),
        Entry::Bridge { name } => Bridge::remove(name),
        Entry::Disk { path } => disk::unmount(path),
        Entry::Sysctl { path, before } => match std::fs::write(path, before) {
            // The setting of an interface goes with the interface.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.with_context(|| format!("cannot restore {}", path.display())),
        },
        Entry::Device { data } => cleanup(binaries, &["virtual", "--cleanup", "--data"], data),
        Entry::Engine { data } => {
            // It ends by itself when the server does, but perhaps not yet.
            end_by_words(&["engine".as_ref(), "--data".as_ref(), data.as_os_str()])?;
            cleanup(binaries, &["engine", "--cleanup", "--data"], data)
        }
    }
}

/// Has `minke-device` remove what it left behind when it ended badly.
fn cleanup(binaries: Option<&Binaries>, words: &[&str], data: &Path) -> Result<()> {
    if !data.exists() {
        return Ok(());
    }
    let binaries = binaries.context("minke-device is needed to clean up; build it first")?;
    let output = Command::new(binaries.path("minke-device"))
        .args(words)
        .arg(data)
        .output()
        .context("cannot start minke-device")?;
    if !output.status.success() {
        bail!(
            "minke-device {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// The address in the line with which a server says that it is ready.
fn listening(line: &str) -> Option<String> {
    let (_, after) = line.split_once("istening on ")?;
    let url = after.split_whitespace().next()?;
    url.starts_with("http://").then(|| url.trim_end_matches('/').to_owned())
}

fn random_password() -> Result<String> {
    let mut bytes = [0u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
