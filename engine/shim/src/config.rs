//! `shim.conf`: what a shim must know, as `key value` lines. Written by the daemon, read once.
//!
//! Invariant: printing and parsing round-trip. Values reach to the end of the line, so a path with a
//! line feed cannot be said and is refused when written. Unknown keys are ignored: an older shim must
//! accept a newer daemon's file.

use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::log::Format;

/// Configuration of one shim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShimConfig {
    /// Container id: libcontainer's name of the container, at most 128 plain characters.
    pub id: String,
    /// The program whose first argument `runtime` makes it the runtime helper (`minke-device`).
    pub runtime: PathBuf,
    /// Directory with the OCI `config.json`.
    pub bundle: PathBuf,
    /// The main process has a terminal (`process.terminal` of the bundle must say the same).
    pub tty: bool,
    /// The main process has a stdin; else it is `/dev/null`.
    pub stdin: bool,
    /// The first client that ends its stdin ends the container's.
    pub stdin_once: bool,
    /// Where output is kept. `None`: it is only given to clients.
    pub log: Option<LogConfig>,
    /// Answer DNS queries on 127.0.0.11 in this network namespace.
    pub dns: Option<DnsConfig>,
}

/// Where and how to log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The newest file.
    pub path: PathBuf,
    /// Bytes after which a new file is begun; 0: never.
    pub max_size: u64,
    /// How many files are kept, at least 1. The older ones are `<path>.1`, `<path>.2`, ….
    pub max_files: u32,
    /// How lines are stored.
    pub format: Format,
    /// Older files are packed: `<path>.1.gz`, ….
    pub compress: bool,
    /// A JSON object that stands in every line of a `json-file`; empty: none.
    pub marks: String,
    /// Bytes of lines that may wait for the disk before others are dropped; 0: the container waits.
    pub buffer: u64,
}

/// The port of name services.
pub const DNS_PORT: u16 = 53;

/// Name service of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// A file that names the network namespace.
    pub netns: PathBuf,
    /// A file of `names <path>` and `upstream <address>[:port]` lines ([`crate::names`]); it and the
    /// files it names are read again when they change.
    pub sources: PathBuf,
    /// Where it listens on 127.0.0.11: [`DNS_PORT`], or where questions to that port are led to.
    pub port: u16,
}

impl ShimConfig {
    /// The file's text; fails if a path has a line feed.
    pub fn print(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut line = |key: &str, value: &[u8]| {
            if value.contains(&b'\n') {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "line feed in a path"));
            }
            out.extend_from_slice(key.as_bytes());
            out.push(b' ');
            out.extend_from_slice(value);
            out.push(b'\n');
            Ok(())
        };
        line("version", b"1")?;
        line("id", self.id.as_bytes())?;
        line("runtime", self.runtime.as_os_str().as_bytes())?;
        line("bundle", self.bundle.as_os_str().as_bytes())?;
        for (key, flag) in
            [("tty", self.tty), ("stdin", self.stdin), ("stdin-once", self.stdin_once)]
        {
            line(key, if flag { b"1" } else { b"0" })?;
        }
        if let Some(log) = &self.log {
            line("log", log.path.as_os_str().as_bytes())?;
            let mut number = String::new();
            let _ = write!(number, "{}", log.max_size);
            line("log-max-size", number.as_bytes())?;
            line("log-max-files", log.max_files.to_string().as_bytes())?;
            let format = match log.format {
                Format::JsonFile => "json-file",
                Format::Local => "local",
            };
            line("log-format", format.as_bytes())?;
            line("log-compress", if log.compress { b"1" } else { b"0" })?;
            if log.buffer > 0 {
                line("log-buffer", log.buffer.to_string().as_bytes())?;
            }
            if !log.marks.is_empty() {
                line("log-marks", log.marks.as_bytes())?;
            }
        }
        if let Some(dns) = &self.dns {
            line("netns", dns.netns.as_os_str().as_bytes())?;
            line("dns", dns.sources.as_os_str().as_bytes())?;
            line("dns-port", dns.port.to_string().as_bytes())?;
        }
        Ok(out)
    }

    /// Read the file's text.
    pub fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let mut config = Self::default();
        let (mut log, mut netns, mut sources) = (LogConfig::default(), None, None);
        let mut port = DNS_PORT;
        let mut version = false;
        for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let space = line.iter().position(|b| *b == b' ').ok_or("line without a value")?;
            let (key, value) = (&line[..space], &line[space + 1..]);
            let path = || PathBuf::from(std::ffi::OsStr::from_bytes(value));
            match key {
                b"version" => version = value == b"1",
                b"id" => config.id = text_of(value)?.to_owned(),
                b"runtime" => config.runtime = path(),
                b"bundle" => config.bundle = path(),
                b"tty" => config.tty = value == b"1",
                b"stdin" => config.stdin = value == b"1",
                b"stdin-once" => config.stdin_once = value == b"1",
                b"log" => log.path = path(),
                b"log-max-size" => log.max_size = number(value)?,
                b"log-max-files" => log.max_files = number(value)? as u32,
                b"log-format" => {
                    log.format = match value {
                        b"json-file" => Format::JsonFile,
                        b"local" => Format::Local,
                        _ => return Err("unknown log format"),
                    };
                }
                b"log-compress" => log.compress = value == b"1",
                b"log-buffer" => log.buffer = number(value)?,
                b"log-marks" => log.marks = text_of(value)?.to_owned(),
                b"netns" => netns = Some(path()),
                b"dns" => sources = Some(path()),
                b"dns-port" => {
                    port = u16::try_from(number(value)?).map_err(|_| "a port is below 65536")?;
                }
                _ => {}
            }
        }
        if !version {
            return Err("not version 1");
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if config.id.is_empty() || config.id.len() > 128 || !config.id.bytes().all(plain) {
            return Err("bad container id");
        }
        if config.runtime.as_os_str().is_empty() || config.bundle.as_os_str().is_empty() {
            return Err("runtime or bundle is missing");
        }
        log.max_files = log.max_files.clamp(1, 1000);
        config.log = (!log.path.as_os_str().is_empty()).then_some(log);
        config.dns = netns.zip(sources).map(|(netns, sources)| DnsConfig { netns, sources, port });
        Ok(config)
    }
}

fn text_of(value: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(value).map_err(|_| "value is not UTF-8")
}

fn number(value: &[u8]) -> Result<u64, &'static str> {
    text_of(value)?.parse().map_err(|_| "value is not a number")
}
