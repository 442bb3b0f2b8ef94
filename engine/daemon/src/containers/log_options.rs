//! What a container's log configuration means. Pure.

use std::collections::BTreeMap;

use minke_common_model::sizes;
use minke_engine_client::wire::{HostConfig, LogConfig};
use minke_engine_shim::log::Format;

use super::log_marks::{Marks, Subject};
use crate::error::{Error, Result};

/// How a container's output is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogOptions {
    pub(crate) format: Format,
    /// Bytes of a file; 0: any.
    pub(crate) max_size: u64,
    /// Files that are kept.
    pub(crate) max_files: u32,
    /// Older files are packed.
    pub(crate) compress: bool,
    /// The container does not wait for its lines to be written.
    non_blocking: bool,
    /// Bytes of lines that may wait.
    max_buffer: u64,
    /// What every line is marked with.
    marks: Marks,
}

/// Docker's defaults.
fn local() -> LogOptions {
    LogOptions {
        format: Format::Local,
        max_size: 20 << 20,
        max_files: 5,
        compress: true,
        ..json_file()
    }
}

fn json_file() -> LogOptions {
    LogOptions {
        format: Format::JsonFile,
        max_size: 0,
        max_files: 1,
        compress: false,
        non_blocking: false,
        max_buffer: 1 << 20,
        marks: Marks::default(),
    }
}

impl LogOptions {
    fn option(&mut self, name: &str, value: &str) -> Result<()> {
        let invalid = |want: &str| {
            Error::Invalid(format!("invalid value {value:?} of log option {name}: want {want}"))
        };
        let size = || sizes::bytes(value).filter(|size| *size > 0);
        match name {
            "max-size" if value == "-1" => self.max_size = 0,
            "max-size" => {
                self.max_size = size().ok_or_else(|| invalid("a size like 10m, or -1"))?
            }
            "max-file" => {
                let count = value.parse().ok().filter(|count| (1..=1000).contains(count));
                self.max_files = count.ok_or_else(|| invalid("1 to 1000"))?;
            }
            "compress" => self.compress = value.parse().map_err(|_| invalid("true or false"))?,
            "mode" => match value {
                "" | "blocking" => self.non_blocking = false,
                "non-blocking" => self.non_blocking = true,
                _ => return Err(invalid("blocking or non-blocking")),
            },
            "max-buffer-size" => {
                self.max_buffer = size().ok_or_else(|| invalid("a size like 1m"))?
            }
            _ if self.format == Format::JsonFile && self.marks.option(name, value)? => {}
            _ => {
                return Err(Error::Invalid(format!(
                    "log option {name}={value:?} is not supported by this engine"
                )));
            }
        }
        Ok(())
    }

    /// Bytes of lines that wait before others are dropped; 0: the container waits.
    pub(crate) fn buffer(&self) -> u64 {
        if self.non_blocking { self.max_buffer } else { 0 }
    }

    /// What the lines of a container are marked with.
    pub(crate) fn marks_of(&self, subject: &Subject<'_>) -> Result<BTreeMap<String, String>> {
        self.marks.of(subject)
    }
}

/// Reads the configuration; `None`: output is not kept.
pub(crate) fn read(host: &HostConfig) -> Result<Option<LogOptions>> {
    let LogConfig { kind, config } = &host.log_config;
    let mut options = match kind.as_str() {
        "" | "json-file" => json_file(),
        "local" => local(),
        "none" => return Ok(None),
        other => {
            return Err(Error::Invalid(format!(
                "logger: no log driver named '{other}' is registered"
            )));
        }
    };
    for (name, value) in config {
        options.option(name, value)?;
    }
    if config.contains_key("max-buffer-size") && !options.non_blocking {
        return Err(Error::Invalid(
            "the log option max-buffer-size goes with mode=non-blocking only".to_owned(),
        ));
    }
    let one_file = options.max_files == 1 || options.max_size == 0;
    if config.get("compress").is_some_and(|text| text == "true") && one_file {
        return Err(Error::Invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
                .to_owned(),
        ));
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: &str, config: &[(&str, &str)]) -> Result<Option<LogOptions>> {
        let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let log_config = LogConfig { kind: kind.to_owned(), config };
        read(&HostConfig { log_config, ..HostConfig::default() })
    }

    #[test]
    fn drivers_have_dockers_defaults() {
        assert_eq!(options("", &[]).unwrap(), Some(json_file()));
        assert_eq!(options("local", &[]).unwrap(), Some(local()));
        assert_eq!(options("none", &[]).unwrap(), None);
        let given =
            options("local", &[("max-size", "1k"), ("max-file", "2"), ("compress", "false")]);
        let own = LogOptions { max_size: 1024, max_files: 2, compress: false, ..local() };
        assert_eq!(given.unwrap(), Some(own));
        let packed =
            options("json-file", &[("max-size", "1m"), ("max-file", "3"), ("compress", "true")]);
        assert!(packed.unwrap().unwrap().compress);
    }

    #[test]
    fn a_log_need_not_hold_the_container_up() {
        let given = [("mode", "non-blocking"), ("max-buffer-size", "4m"), ("max-file", "3")];
        assert_eq!(options("json-file", &given).unwrap().unwrap().buffer(), 4 << 20);
        assert_eq!(options("json-file", &given[..1]).unwrap().unwrap().buffer(), 1 << 20);
        assert_eq!(options("json-file", &[]).unwrap().unwrap().buffer(), 0);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (kind, config, word) in [
            ("syslog", &[][..], "syslog"),
            ("local", &[("max-size", "x")], "max-size"),
            ("local", &[("max-size", "0")], "max-size"),
            ("json-file", &[("max-file", "0")], "max-file"),
            ("json-file", &[("compress", "true")], "compress"),
            ("local", &[("tag", "x")], "tag"),
            ("json-file", &[("tag", "{{.Nothing}}")], "Nothing"),
            ("json-file", &[("labels-regex", "(")], "labels-regex"),
            ("json-file", &[("mode", "sometimes")], "mode"),
            ("json-file", &[("max-buffer-size", "1m")], "mode=non-blocking"),
            ("json-file", &[("mode", "non-blocking"), ("max-buffer-size", "x")], "max-buffer-size"),
        ] {
            let error = options(kind, config).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
