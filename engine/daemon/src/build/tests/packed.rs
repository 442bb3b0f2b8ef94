//! Contexts that are packed.

use std::io::Write;
use std::process::{Command, Stdio};

use bytes::Bytes;
use futures_util::StreamExt;
use minke_engine_client::{BuildImage, Error};

use super::harness::{Site, tar};

fn packed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let output = Command::new(program).arg("-c").arg(file.path()).stderr(Stdio::inherit()).output();
    output.unwrap().stdout
}

/// Sends a context in small pieces; the error, if there is one.
async fn built(site: &Site, context: &[u8]) -> Option<String> {
    let pieces: Vec<_> =
        context.chunks(10_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let body = futures_util::stream::iter(pieces).boxed();
    match site.client.build(&BuildImage::default(), body, |_| {}).await {
        Ok(_) => None,
        Err(Error::Refused { message, .. }) => Some(message),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_packed_context_is_taken_whole_or_not_at_all() {
    let site = Site::new().await;
    let context = tar(&[("Dockerfile", "FROM scratch\nCOPY busybox /\n")], true);
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let mut whole = packed(program, &context);
        assert_eq!(built(&site, &whole).await, None, "{program}");
        // All of the archive is there, but not what says so.
        whole.truncate(whole.len() - 3);
        let error = built(&site, &whole).await.unwrap_or_else(|| panic!("{program}: it was built"));
        assert!(error.contains("the build context cannot be read"), "{program}: {error}");
    }
    site.emptied().await;
}
