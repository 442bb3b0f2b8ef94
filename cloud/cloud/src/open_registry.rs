//! `minke-cloud registry`: a registry without accounts.

use anyhow::{Context, Result};
use minke_cloud_blobs::{DirBlobs, DirOptions};
use minke_cloud_registry::{Auth, Registry, router};
use std::sync::Arc;
use tokio::net::TcpListener;

use crate::arguments::OpenRegistry;
use crate::data_directory::DataDirectory;
use crate::stop::Stop;

pub async fn run(options: OpenRegistry) -> Result<()> {
    let stop = Stop::listen()?;
    let data = DataDirectory::open(&options.data)?;
    let blobs = DirBlobs::open(data.join("blobs"), &DirOptions::default())?;
    let registry = Registry::new(Arc::new(blobs), Auth::Open);
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("listening on {}", options.listen))?;
    let address = listener.local_addr()?;
    println!("Listening on http://{address} (open registry, data in {})", options.data.display());
    axum::serve(listener, router(registry)).with_graceful_shutdown(stop.wait()).await?;
    Ok(())
}
