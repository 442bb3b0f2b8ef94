//! `/exec`: a further process in a running container.

use futures_util::TryStreamExt;

use super::Client;
use super::containers::chunks;
use crate::transport::segment;
use crate::wire::{CreateExec, CreatedId, ExecDetails, StartExec};
use crate::{Error, LogSource};

/// What a process said and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Exit status, or 128 + signal.
    pub exit_code: i64,
    /// Everything it wrote there.
    pub stdout: Vec<u8>,
    /// Everything it wrote there.
    pub stderr: Vec<u8>,
}

impl Client {
    /// Runs a command in a running container to its end. Without stdin and terminal.
    pub async fn exec(&self, container: &str, command: &[&str]) -> Result<ExecOutcome, Error> {
        let body = CreateExec {
            attach_stdout: true,
            attach_stderr: true,
            cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            ..CreateExec::default()
        };
        self.exec_with(container, &body).await
    }

    /// Runs a process in a running container to its end and collects what it says.
    pub async fn exec_with(
        &self,
        container: &str,
        body: &CreateExec,
    ) -> Result<ExecOutcome, Error> {
        let call = self.post(format!("/containers/{}/exec", segment(container))).json(body);
        let created: CreatedId = call.send().await?.json().await?;
        let start = StartExec { tty: body.tty, ..StartExec::default() };
        let call = self.post(format!("/exec/{}/start", created.id)).json(&start);
        let mut outcome = ExecOutcome::default();
        let mut output = chunks(call.send().await?);
        while let Some(chunk) = output.try_next().await? {
            match chunk.source {
                LogSource::Stdout => outcome.stdout.extend_from_slice(&chunk.bytes),
                LogSource::Stderr => outcome.stderr.extend_from_slice(&chunk.bytes),
            }
        }
        outcome.exit_code = self.inspect_exec(&created.id).await?.exit_code.unwrap_or(-1);
        Ok(outcome)
    }

    /// The state of an exec.
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecDetails, Error> {
        self.get(format!("/exec/{}/json", segment(id))).send().await?.json().await
    }
}
