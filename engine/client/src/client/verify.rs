//! `/minke/verify`: a call of this engine only.

use super::Client;
use crate::Error;
use crate::wire::{VerifyLine, VerifyReport};

impl Client {
    /// Reads the whole image store and reports what is damaged; fetches it again if `repair`.
    pub async fn verify(
        &self,
        repair: bool,
        mut progress: impl FnMut(&VerifyLine) + Send,
    ) -> Result<VerifyReport, Error> {
        let call = self.post("/minke/verify".to_owned()).flag("repair", repair);
        let mut lines = call.send().await?.lines::<VerifyLine>();
        let call = lines.name().to_owned();
        while let Some(line) = lines.next().await? {
            if let Some(message) = line.error {
                return Err(Error::Refused { call, status: 500, message });
            }
            if let Some(report) = line.report {
                return Ok(report);
            }
            progress(&line);
        }
        let message = "the engine went away before it reported".to_owned();
        Err(Error::Refused { call, status: 500, message })
    }
}
