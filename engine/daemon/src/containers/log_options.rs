//! What a container's log configuration means. Pure.

use minke_common_model::sizes;
use minke_engine_client::wire::{HostConfig, LogConfig};
use minke_engine_shim::log::Format;

use crate::error::{Error, Result};

/// How a container's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogOptions {
    pub(crate) format: Format,
    /// Bytes of a file; 0: any.
    pub(crate) max_size: u64,
    /// Files that are kept.
    pub(crate) max_files: u32,
    /// Older files are packed.
    pub(crate) compress: bool,
}

/// Docker's, of its `local` driver.
const LOCAL: LogOptions =
    LogOptions { format: Format::Local, max_size: 20 << 20, max_files: 5, compress: true };
const JSON_FILE: LogOptions =
    LogOptions { format: Format::JsonFile, max_size: 0, max_files: 1, compress: false };

/// Reads the configuration; `None`: output is not kept.
pub(crate) fn read(host: &HostConfig) -> Result<Option<LogOptions>> {
    let LogConfig { kind, config } = &host.log_config;
    let mut options = match kind.as_str() {
        "" | "json-file" => JSON_FILE,
        "local" => LOCAL,
        "none" => return Ok(None),
        other => {
            return Err(Error::Invalid(format!(
                "LogConfig.Type: {other:?} is not supported by this engine: there are json-file, local and none"
            )));
        }
    };
    for (name, value) in config {
        let invalid = |want: &str| {
            Error::Invalid(format!("invalid value {value:?} of log option {name}: want {want}"))
        };
        match name.as_str() {
            "max-size" if value == "-1" => options.max_size = 0,
            "max-size" => {
                options.max_size = sizes::bytes(value)
                    .filter(|size| *size > 0)
                    .ok_or_else(|| invalid("a size like 10m, or -1"))?;
            }
            "max-file" => {
                let count = value.parse().ok().filter(|count| (1..=1000).contains(count));
                options.max_files = count.ok_or_else(|| invalid("1 to 1000"))?;
            }
            "compress" => options.compress = value.parse().map_err(|_| invalid("true or false"))?,
            // What is written waits for nobody but the page cache.
            "mode" if value == "blocking" => {}
            _ => {
                return Err(Error::Invalid(format!(
                    "log option {name}={value:?} is not supported by this engine"
                )));
            }
        }
    }
    let one_file = options.max_files == 1 || options.max_size == 0;
    if config.contains_key("max-file") && options.max_files > 1 && options.max_size == 0 {
        return Err(Error::Invalid("max-file cannot be set without max-size".to_owned()));
    }
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
        assert_eq!(options("", &[]).unwrap(), Some(JSON_FILE));
        assert_eq!(options("local", &[]).unwrap(), Some(LOCAL));
        assert_eq!(options("none", &[]).unwrap(), None);
        let given =
            options("local", &[("max-size", "1k"), ("max-file", "2"), ("compress", "false")]);
        let own = LogOptions { max_size: 1024, max_files: 2, compress: false, ..LOCAL };
        assert_eq!(given.unwrap(), Some(own));
        let packed =
            options("json-file", &[("max-size", "1m"), ("max-file", "3"), ("compress", "true")]);
        assert!(packed.unwrap().unwrap().compress);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (kind, config, word) in [
            ("syslog", &[][..], "syslog"),
            ("local", &[("max-size", "x")], "max-size"),
            ("local", &[("max-size", "0")], "max-size"),
            ("json-file", &[("max-file", "0")], "max-file"),
            ("json-file", &[("max-file", "3")], "max-size"),
            ("json-file", &[("compress", "true")], "compress"),
            ("json-file", &[("tag", "x")], "tag"),
            ("json-file", &[("mode", "non-blocking")], "mode"),
        ] {
            let error = options(kind, config).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
