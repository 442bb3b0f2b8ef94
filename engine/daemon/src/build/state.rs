//! What a stage is at one of its instructions.

use std::collections::BTreeMap;

use minke_common_dockerfile::expand;
use minke_common_model::digest::Digest;
use minke_engine_images::{History, ImageConfig, ImageId};

use crate::build::cache::{Key, note_key};

/// The search path of an image that says none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Build arguments that need no `ARG` and are in no cache key and no image.
pub(crate) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A stage in the making.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) config: ImageConfig,
    pub(crate) key: Key,
    /// The image whose layers are the stage's so far.
    pub(crate) image: Option<ImageId>,
    /// `ARG`s seen so far that have a value.
    pub(crate) args: BTreeMap<String, String>,
    /// The escape character of the Dockerfile.
    pub(crate) escape: char,
    /// `CMD` was given in this build: a later `ENTRYPOINT` leaves it.
    pub(crate) command_set: bool,
    /// A step was not in the cache: no later one is looked up.
    pub(crate) missed: bool,
    /// What the stage began with.
    pub(crate) base: Base,
}

/// What a stage began with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    pub(crate) image: Option<ImageId>,
    /// How many layers it has.
    pub(crate) layers: usize,
    /// How many steps made it.
    pub(crate) steps: usize,
}

impl State {
    /// A stage that begins with this configuration.
    pub(crate) fn new(
        config: ImageConfig,
        key: Key,
        image: Option<ImageId>,
        escape: char,
    ) -> State {
        let base =
            Base { image, layers: config.rootfs.diff_ids.len(), steps: config.history.len() };
        let mut state = State {
            base,
            config,
            key,
            image,
            args: BTreeMap::new(),
            escape,
            command_set: false,
            missed: false,
        };
        // What an old daemon noted of its own building is not true of what comes now.
        for gone in ["container", "container_config", "docker_version", "id", "parent"] {
            state.config.other.remove(gone);
        }
        if state.env("PATH").is_none() {
            state.config.config.env.push(DEFAULT_PATH.to_owned());
        }
        state
    }

    /// A stage that begins with another's end, arguments included, as in BuildKit.
    pub(crate) fn follow(&self) -> State {
        let config = &self.config;
        let base =
            Base { image: None, layers: config.rootfs.diff_ids.len(), steps: config.history.len() };
        State { command_set: false, missed: false, base, ..self.clone() }
    }

    /// A variable of the image.
    pub(crate) fn env(&self, name: &str) -> Option<String> {
        let pairs = self.config.config.env.iter().filter_map(|e| e.split_once('='));
        pairs.filter(|(n, _)| *n == name).map(|(_, v)| v.to_owned()).next_back()
    }

    /// Sets a variable of the image.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        let own = |e: &String| e.split_once('=').is_some_and(|(n, _)| n == name);
        match self.config.config.env.iter_mut().find(|e| own(e)) {
            Some(found) => *found = entry,
            None => self.config.config.env.push(entry),
        }
    }

    /// A variable as words see it: those of the image hide arguments.
    pub(crate) fn lookup(&self, name: &str) -> Option<String> {
        self.env(name).or_else(|| self.args.get(name).cloned())
    }

    /// A word with its variables filled in and quotes removed.
    pub(crate) fn word(&self, text: &str) -> Result<String, String> {
        expand::word(text, self.escape, &|name| self.lookup(name)).map_err(|e| e.to_string())
    }

    /// The same, split where the variables' values hold spaces.
    pub(crate) fn words(&self, text: &str) -> Result<Vec<String>, String> {
        expand::words(text, self.escape, &|name| self.lookup(name)).map_err(|e| e.to_string())
    }

    /// An absolute path in the image.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let base = if path.starts_with('/') { "" } else { &self.config.config.working_dir };
        let mut parts: Vec<&str> = Vec::new();
        for part in base.split('/').chain(path.split('/')) {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }

    /// The shell of the shell form.
    pub(crate) fn shell(&self) -> Vec<String> {
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        self.config.config.shell.clone().unwrap_or_else(default)
    }

    /// Notes a step in the image's history.
    pub(crate) fn record(&mut self, text: &str, created: &str, layer: bool, key: &Key) {
        self.config.created = Some(created.to_owned());
        self.note(text, layer);
        note_key(&mut self.config, key);
    }

    /// Notes a step that is in no key, such as `ARG`: its time is that of the step before.
    pub(crate) fn note(&mut self, text: &str, layer: bool) {
        self.config.history.push(History {
            created: self.config.created.clone(),
            created_by: Some(text.chars().take(4096).collect()),
            empty_layer: !layer,
            ..History::default()
        });
    }

    /// The beginning of the id that an image of this state has.
    pub(crate) fn short_id(&self) -> String {
        let config = serde_json::to_vec(&self.config).unwrap_or_default();
        Digest::of(&config).hex()[..12].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new(ImageConfig::default(), Key::base(None, "linux/amd64"), None, '\\')
    }

    #[test]
    fn the_images_variables_hide_arguments() {
        let mut state = state();
        state.args.insert("A".into(), "arg".into());
        state.args.insert("B".into(), "arg".into());
        state.set_env("A", "env");
        state.set_env("A", "env2");
        assert_eq!(state.word("$A-${B}"), Ok("env2-arg".into()));
        assert_eq!(state.config.config.env.len(), 2);
    }

    #[test]
    fn paths_are_made_absolute_and_stay_inside() {
        let mut state = state();
        assert_eq!(state.absolute("a/../b/"), "/b");
        state.config.config.working_dir = "/srv/app".into();
        assert_eq!(state.absolute("../x"), "/srv/x");
        assert_eq!(state.absolute("/../../x"), "/x");
    }
}
