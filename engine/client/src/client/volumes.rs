//! `/volumes`.

use super::{Client, optional};
use crate::Error;
use crate::transport::segment;
use crate::wire::{CreateVolume, Volume, VolumeList};

impl Client {
    /// Every volume.
    pub async fn list_volumes(&self) -> Result<Vec<Volume>, Error> {
        let list: VolumeList = self.get("/volumes".to_owned()).send().await?.json().await?;
        Ok(list.volumes)
    }

    /// One volume.
    pub async fn inspect_volume(&self, name: &str) -> Result<Option<Volume>, Error> {
        let call = self.get(format!("/volumes/{}", segment(name)));
        let answer = async { call.send().await?.json().await };
        optional(answer.await)
    }

    /// Makes a volume, or answers the one that has the name.
    pub async fn make_volume(&self, body: &CreateVolume) -> Result<Volume, Error> {
        self.post("/volumes/create".to_owned()).json(body).send().await?.json().await
    }

    /// Removes a volume with all it holds.
    pub async fn delete_volume(&self, name: &str, force: bool) -> Result<(), Error> {
        let call = self.delete(format!("/volumes/{}", segment(name))).flag("force", force);
        call.send().await?.done().await
    }
}
