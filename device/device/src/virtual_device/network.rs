//! A bridge of the device's own, where nobody has one for it.

use std::path::Path;

use anyhow::Context;
use minke_engine_network::{NetworkOptions, Networks};

/// A bridge with an address and a way out, made by this device.
pub struct OwnNetwork {
    /// The interface's name.
    pub bridge: String,
}

const NAME: &str = "virtual";

impl OwnNetwork {
    /// Makes it: a subnet that no route of the machine touches, and NAT.
    pub fn make(data: &Path) -> anyhow::Result<OwnNetwork> {
        let bridge = with_networks(data, async |networks| {
            networks.restore(|_| false).await.context("cannot look at the machine's network")?;
            let options = NetworkOptions { name: NAME.to_owned(), ..NetworkOptions::default() };
            let made = networks.create(options).await.context("cannot make a bridge")?;
            Ok(made.bridge)
        })?;
        Ok(OwnNetwork { bridge })
    }

    /// Removes what [`OwnNetwork::make`] made, if it did.
    pub fn remove(data: &Path) -> anyhow::Result<()> {
        let folder = data.join("network");
        if !folder.exists() {
            return Ok(());
        }
        with_networks(data, async |networks| {
            networks.destroy_all().await.context("cannot remove the device's bridge")
        })?;
        std::fs::remove_dir_all(&folder).context("cannot remove the bridge's documents")
    }
}

fn with_networks<T>(
    data: &Path,
    work: impl AsyncFnOnce(Networks) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let folder = data.join("network");
        let id = format!("virtual_{}", super::remains::id(data));
        let networks = Networks::open(&folder, &folder.join("run"), &id)
            .context("cannot read the device's network")?;
        work(networks).await
    })
}
