//! The loop that everything else grows on, with the project in `examples/weather`: push it, see
//! it run on a device, change a line, push again, see the change.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::wait_until;
use crate::{Site, Stages, http};

/// The fleet that the project is pushed to.
pub const FLEET: &str = "weather";
const ANSWER: Duration = Duration::from_secs(180);
const READ: Duration = Duration::from_secs(2);
/// The line of `api/api.pl` that a second release changes.
const FIRST_GREETING: &str = "Hello from the first release";

/// A copy of the example that can be changed and pushed.
#[derive(Debug)]
pub struct Weather {
    folder: PathBuf,
    greeting: String,
}

impl Weather {
    /// Copies `example` into `folder`.
    pub fn copy(example: &Path, folder: &Path) -> Result<Weather> {
        copy_folder(example, folder).with_context(|| {
            format!("cannot copy {} to {}", example.display(), folder.display())
        })?;
        Ok(Weather { folder: folder.to_owned(), greeting: FIRST_GREETING.to_owned() })
    }

    /// Where the copy is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Changes the one line that says what the API answers.
    pub fn change_greeting(&mut self, greeting: &str) -> Result<()> {
        let path = self.folder.join("api/api.pl");
        let said = || format!("cannot change {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(said)?;
        if !text.contains(&self.greeting) {
            bail!("{} does not say `{}`", path.display(), self.greeting);
        }
        std::fs::write(&path, text.replace(&self.greeting, greeting)).with_context(said)?;
        greeting.clone_into(&mut self.greeting);
        Ok(())
    }

    /// Pushes the project; the values are what `minke push --json` wrote.
    pub fn push(&self, site: &Site) -> Result<Vec<Value>> {
        self.push_telling(site, &mut |_| {})
    }

    fn push_telling(&self, site: &Site, hear: &mut dyn FnMut(&Value)) -> Result<Vec<Value>> {
        let folder = self.folder.to_str().context("the project's folder is not UTF-8")?;
        site.cli().json_stream(&["push", FLEET, "--source", folder], hear)
    }

    /// Waits until the device's page, asking the API, answers with the greeting and a reading.
    pub fn wait_for_answer(&self, site: &Site, device: &str) -> Result<SystemTime> {
        let url = format!("http://{}/cgi-bin/readings", site.device(device)?.address);
        wait_until(&format!("`{}` from {url}", self.greeting), ANSWER, || {
            // Refused connections and errors are what waiting is for.
            let answer = http::get(&url, READ).ok().filter(|answer| answer.status == 200);
            let value = answer.and_then(|it| serde_json::from_str::<Value>(&it.body).ok());
            let now = SystemTime::now();
            Ok(value.filter(|it| self.is_answered_by(it)).map(|_| now))
        })
    }

    fn is_answered_by(&self, value: &Value) -> bool {
        value["greeting"] == self.greeting.as_str()
            && value["readings"].as_array().is_some_and(|readings| !readings.is_empty())
    }

    /// Pushes, waits for the answer, and says how long each stage took. `hear` gets what
    /// `minke push --json` writes when it does.
    pub fn push_and_measure(
        &self,
        site: &Site,
        device: &str,
        hear: &mut dyn FnMut(&Value),
    ) -> Result<Stages> {
        let begun = SystemTime::now();
        let push = self.push_telling(site, hear)?;
        let answered = self.wait_for_answer(site, device)?;
        let uuid = &site.device(device)?.uuid;
        // The device's last log lines are on their way while its page answers already.
        wait_until("the device's log of the update", ANSWER, || {
            Ok(Stages::measure(site.cli(), uuid, &push, begun, answered).ok())
        })
        .or_else(|_| Stages::measure(site.cli(), uuid, &push, begun, answered))
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
