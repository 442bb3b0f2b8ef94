//! Containers that share a link of the host, each with an address on the host's own network.

use std::path::Path;

use crate::NetworkError;
use crate::document::{Endpoint, NetworkRecord, Parent};
use crate::link::{Links, Shared};

/// Make a link of the parent inside the namespace.
pub(super) async fn share(
    links: &Links,
    parent: &Parent,
    record: &NetworkRecord,
    endpoint: &Endpoint,
    mac: Option<[u8; 6]>,
    namespace: &Path,
) -> Result<(), NetworkError> {
    let shared = Shared {
        name: &endpoint.interface,
        parent: parent_index(links, parent).await?,
        kind: parent.kind,
        mode: &parent.mode,
        mac,
        mtu: Some(record.mtu),
    };
    links.make_shared(&shared, Some(namespace)).await
}

/// Find out whether the kernel can do it, by doing it once.
pub(super) async fn try_out(links: &Links, parent: &Parent, id: &str) -> Result<(), NetworkError> {
    let name = format!("mt{}", &id[..10]);
    let index = parent_index(links, parent).await?;
    let shared = Shared {
        name: &name,
        parent: index,
        kind: parent.kind,
        mode: &parent.mode,
        mac: None,
        mtu: None,
    };
    links.make_shared(&shared, None).await?;
    links.delete(&name).await
}

async fn parent_index(links: &Links, parent: &Parent) -> Result<u32, NetworkError> {
    links.index(&parent.link).await?.ok_or_else(|| NetworkError::NoSuchParent(parent.link.clone()))
}
