//! `RUN`.

use std::time::Duration;

use bytes::Bytes;
use minke_common_dockerfile::{Command, Run, RunNetwork as Asked};
use tokio::sync::mpsc;

use crate::build::commit::drop_mount_points;
use crate::build::config;
use crate::build::mounts::Mounted;
use crate::build::runner::{RunBind, RunNetwork, RunStep};
use crate::build::stage::{Failure, Stage};
use crate::build::state::PROXIES;

/// Where a script with a `#!` line is shown to the container: in its `/dev`, which is no part of the
/// image.
pub(crate) const SCRIPT: &str = "/dev/minke-run-script";
/// What the engine itself mounts into every container.
const OWN_TARGETS: [&str; 6] =
    ["/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
/// How long the end of the output may take after the exit.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Stage<'_> {
    /// Runs a command, or takes what it made before from the cache.
    pub(crate) async fn run(&mut self, run: &Run) -> Result<(), Failure> {
        if run.insecure {
            return Err(Failure::text("`--security=insecure` is not supported"));
        }
        let mut mounted = self.mounts(&run.mounts).await?;
        let argv = self.argv(run, &mut mounted)?;
        let shown = argv.join(" ");
        let network = match run.network {
            Asked::Default => self.build.request.network.clone(),
            Asked::None => RunNetwork::None,
            Asked::Host => RunNetwork::Host,
        };
        let args: Vec<String> = self.state.args.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let text = match args.is_empty() {
            true => format!("RUN {shown}"),
            false => format!("RUN |{} {} {shown}", args.len(), args.join(" ")),
        };
        // The lengths keep a word of one list from being taken for one of the next.
        let head = format!("{network:?} {} {}", argv.len(), args.len());
        let lists = argv.iter().chain(&args).chain(&mounted.inputs).map(String::as_str);
        let inputs: Vec<&str> = std::iter::once(head.as_str()).chain(lists).collect();
        let key = self.state.key.then("RUN", &inputs, b"");
        if self.reuse(&key, &text).await? {
            return Ok(());
        }
        let id = crate::ids::random();
        self.output.text(&format!(" ---> Running in {}\n", &id[..12])).await;
        let lower = self.lower()?;
        let step = self.build.workspace.step().map_err(Failure::io("making a directory"))?;
        let mut env = self.state.config.config.env.clone();
        let own: Vec<String> =
            env.iter().filter_map(|e| e.split('=').next().map(str::to_owned)).collect();
        env.extend(
            args.into_iter().filter(|a| !own.iter().any(|n| a.split('=').next() == Some(n))),
        );
        env.extend(self.proxies(&own));
        env.extend(mounted.env);
        let mut targets: Vec<String> = OWN_TARGETS.iter().map(|t| t.to_string()).collect();
        targets.extend(mounted.targets);
        let request = &self.build.request;
        let mut container = RunStep {
            id,
            lower: lower.clone(),
            upper: step.upper.clone(),
            work: step.work.clone(),
            argv,
            env,
            workdir: self.state.absolute(""),
            user: self.state.config.config.user.clone(),
            network,
            binds: mounted.binds,
            resources: request.resources.clone(),
            ulimits: request.ulimits.clone(),
            cgroup_parent: request.cgroup_parent.clone(),
            shm_size: request.shm_size,
            extra_hosts: request.extra_hosts.clone(),
        };
        // Caches are waited for before the leave to work, so that nobody who works waits for a cache.
        let held = self.caches(&run.mounts, &mut container.binds).await?;
        self.execute(container, &shown).await?;
        drop(held);
        let upper = step.upper.clone();
        let clean = move || drop_mount_points(&upper, &lower, &targets).map_err(|e| e.to_string());
        self.build.blocking(clean).await?;
        self.commit(key, Some(&step.upper), &text).await
    }

    fn argv(&self, run: &Run, mounted: &mut Mounted) -> Result<Vec<String>, Failure> {
        let Some(text) = run.shell_text() else {
            return Ok(config::words(&self.state, &run.command));
        };
        let script = run.script().filter(|s| s.starts_with("#!"));
        let Some(script) = script else {
            return Ok(config::words(&self.state, &Command::Shell(text)));
        };
        let path = self.build.workspace.file();
        std::fs::write(&path, &script).map_err(Failure::io("writing a script"))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).map_err(Failure::io("writing a script"))?;
        mounted.inputs.push(script);
        let target = SCRIPT.to_owned();
        mounted.binds.push(RunBind::Path { source: path, target, read_only: true });
        Ok(vec![SCRIPT.to_owned()])
    }

    /// Proxy settings the client gave; they are in no key and no image.
    fn proxies(&self, own: &[String]) -> Vec<String> {
        let given = self.build.request.args.iter();
        given
            .filter(|(name, _)| PROXIES.contains(&name.as_str()) && !own.contains(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    async fn execute(&self, step: RunStep, shown: &str) -> Result<(), Failure> {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(64);
        let _slot = self.build.slot().await;
        let name = step.id[..12].to_owned();
        let output = &self.output;
        let show = async {
            let mut partial: Vec<u8> = Vec::new();
            while let Some(piece) = receiver.recv().await {
                partial.extend_from_slice(&piece);
                let whole = complete(&partial);
                let rest = partial.split_off(whole);
                output.text(&String::from_utf8_lossy(&partial)).await;
                partial = rest;
            }
            if !partial.is_empty() {
                output.text(&String::from_utf8_lossy(&partial)).await;
            }
        };
        let running = self.build.builder.runner.run(step, sender);
        tokio::pin!(show, running);
        let code = tokio::select! {
            code = &mut running => {
                // What it left in the channel is still shown.
                let _ = tokio::time::timeout(LAST_WORDS, show).await;
                code
            }
            // A command may close its output and go on.
            () = &mut show => running.await,
        };
        match code {
            Ok(0) => {
                output.text(&format!("Removing intermediate container {name}\n")).await;
                Ok(())
            }
            Ok(code) => Err(Failure {
                message: format!(
                    "The command '{shown}' returned a non-zero code: {code}{}",
                    self.foreign(code)
                ),
                code: Some(code),
            }),
            Err(error) => Err(Failure {
                message: format!(
                    "The command '{shown}' could not be run: {error}{}",
                    self.foreign(126)
                ),
                code: None,
            }),
        }
    }

    /// A word about processors where that may be the reason.
    fn foreign(&self, code: i32) -> String {
        let host = minke_engine_images::Platform::host();
        let own = &self.state.config.architecture;
        match matches!(code, 126 | 127 | 255 | 1) && *own != host.architecture && !own.is_empty() {
            true => format!(
                " (the image is for {own}, this machine is {}: without emulation its programs do not run here)",
                host.architecture
            ),
            false => String::new(),
        }
    }
}

/// How much of the bytes can be shown now: a character may be cut at the end.
fn complete(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_not_cut() {
        let bytes = "aü".as_bytes();
        assert_eq!(complete(&bytes[..2]), 1);
        assert_eq!(complete(bytes), 3);
        assert_eq!(complete(&[b'a', 0xff, b'b']), 3);
    }
}
