//! Manifests, tags, lists and referrers.

use minke_cloud_blobs::Digest;
use serde_json::json;

use crate::fixture::{OCI_INDEX, OCI_MANIFEST, Server, descriptor, image};
use crate::http::request;

#[tokio::test]
async fn a_manifest_keeps_its_bytes_and_its_type() {
    let server = Server::open().await;
    let manifest = server.push_image("library/x", "v1", b"layer").await;
    let text = manifest.to_string();
    let digest = Digest::of(text.as_bytes());
    for reference in ["v1".to_owned(), digest.to_string()] {
        let path = format!("/v2/library/x/manifests/{reference}");
        let answer = server.get(&path).await;
        assert_eq!(answer.text(), text);
        assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
        let head = request("HEAD", &path).send(server.address).await;
        let length = text.len().to_string();
        assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));
    }
    // The same bytes elsewhere are not there.
    let elsewhere = server.get(&format!("/v2/other/manifests/{digest}")).await;
    assert_eq!((elsewhere.status, elsewhere.code().as_str()), (404, "MANIFEST_UNKNOWN"));
}

#[tokio::test]
async fn a_manifest_needs_everything_that_it_names() {
    let server = Server::open().await;
    let missing = server.push_manifest("a", "v1", &image(b"{}", &[b"layer"])).await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    server.push_image("a", "v1", b"layer").await;
    // In another repository the same blobs are missing.
    let missing = server.push_manifest("b", "v1", &image(b"{}", &[b"layer"])).await;
    assert_eq!(missing.code(), "MANIFEST_BLOB_UNKNOWN");
    let mut wrong = image(b"{}", &[b"layer"]);
    wrong["layers"][0]["size"] = json!(6);
    let wrong = server.push_manifest("a", "v2", &wrong).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "MANIFEST_INVALID"));
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
                       "manifests": [descriptor(OCI_MANIFEST, b"nowhere")]});
    assert_eq!(server.push_manifest("a", "all", &index).await.code(), "MANIFEST_BLOB_UNKNOWN");
    let child = image(b"{}", &[b"layer"]).to_string();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
                       "manifests": [descriptor(OCI_MANIFEST, child.as_bytes())]});
    assert_eq!(server.push_manifest("a", "all", &index).await.status, 201);
    assert_eq!(server.get("/v2/a/manifests/all").await.header("content-type"), Some(OCI_INDEX));
}

#[tokio::test]
async fn manifests_that_are_none_are_refused() {
    let server = Server::open().await;
    let put = |kind: &str, body: Vec<u8>| {
        let request = request("PUT", "/v2/a/manifests/v1").header("content-type", kind);
        request.body(body).send(server.address)
    };
    for body in ["", "[]", "{\"schemaVersion\":1}", "\0"] {
        let answer = put(OCI_MANIFEST, body.into()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "MANIFEST_INVALID"), "{body}");
    }
    let large = put(OCI_MANIFEST, vec![b' '; (4 << 20) + 1]).await;
    assert_eq!((large.status, large.code().as_str()), (413, "SIZE_INVALID"));
    assert!(large.text().contains("4194304"), "the limit is named");
    let lie = format!("/v2/a/manifests/{}", Digest::of(b"x"));
    let lie = request("PUT", &lie).body("{}").send(server.address).await;
    assert_eq!(lie.code(), "DIGEST_INVALID");
    for path in ["/v2/A/manifests/v1", "/v2/a//b/manifests/v1"] {
        assert_eq!(request("PUT", path).send(server.address).await.code(), "NAME_INVALID");
    }
    assert_eq!(server.get("/v2/a/nonsense").await.status, 404);
    assert_eq!(request("POST", "/v2/a/tags/list").send(server.address).await.status, 405);
}

#[tokio::test]
async fn deleting_a_tag_leaves_the_manifest_and_deleting_the_manifest_takes_the_tags() {
    let server = Server::open().await;
    let manifest = server.push_image("a", "v1", b"layer").await;
    server.push_manifest("a", "v2", &manifest).await;
    let digest = Digest::of(manifest.to_string().as_bytes());
    let delete = |reference: String| {
        request("DELETE", &format!("/v2/a/manifests/{reference}")).send(server.address)
    };
    assert_eq!(delete("v1".to_owned()).await.status, 202);
    assert_eq!(delete("v1".to_owned()).await.code(), "MANIFEST_UNKNOWN");
    assert_eq!(server.get(&format!("/v2/a/manifests/{digest}")).await.status, 200);
    assert_eq!(delete(digest.to_string()).await.status, 202);
    assert_eq!(server.get("/v2/a/manifests/v2").await.status, 404);
    assert_eq!(server.get("/v2/a/tags/list").await.json()["tags"], json!([]));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let server = Server::open().await;
    let manifest = server.push_image("a", "t0", b"layer").await;
    for number in 1..5 {
        server.push_manifest("a", &format!("t{number}"), &manifest).await;
    }
    server.push_image("b/c", "latest", b"layer").await;
    let all = server.get("/v2/a/tags/list").await;
    assert_eq!(all.json(), json!({"name": "a", "tags": ["t0", "t1", "t2", "t3", "t4"]}));
    assert_eq!(all.header("link"), None);
    let page = server.get("/v2/a/tags/list?n=2&last=t1").await;
    assert_eq!(page.json()["tags"], json!(["t2", "t3"]));
    assert_eq!(page.header("link"), Some("</v2/a/tags/list?n=2&last=t3>; rel=\"next\""));
    let last = server.get("/v2/a/tags/list?n=2&last=t3").await;
    assert_eq!((last.json()["tags"].clone(), last.header("link")), (json!(["t4"]), None));
    assert_eq!(server.get("/v2/nowhere/tags/list").await.code(), "NAME_UNKNOWN");

    assert_eq!(server.get("/v2/_catalog").await.json(), json!({"repositories": ["a", "b/c"]}));
    let page = server.get("/v2/_catalog?n=1").await;
    assert_eq!(page.json(), json!({"repositories": ["a"]}));
    assert_eq!(page.header("link"), Some("</v2/_catalog?n=1&last=a>; rel=\"next\""));
    server.registry.delete_repository(&"a".parse().unwrap()).await.unwrap();
    assert_eq!(server.get("/v2/_catalog").await.json(), json!({"repositories": ["b/c"]}));
    assert_eq!(server.get("/v2/a/manifests/t0").await.status, 404);
}

#[tokio::test]
async fn referrers_are_listed_with_what_they_are_about() {
    let server = Server::open().await;
    let subject = server.push_image("a", "v1", b"layer").await.to_string();
    let subject_digest = Digest::of(subject.as_bytes());
    let path = format!("/v2/a/referrers/{subject_digest}");
    let none = server.get(&path).await;
    assert_eq!(none.header("content-type"), Some(OCI_INDEX));
    assert_eq!(none.json()["manifests"], json!([]));

    let mut signature = image(b"{}", &[]);
    signature["artifactType"] = json!("application/x-signature");
    signature["subject"] = descriptor(OCI_MANIFEST, subject.as_bytes());
    signature["annotations"] = json!({"by": "somebody"});
    let answer = server.push_manifest("a", "sig", &signature).await;
    assert_eq!(answer.header("oci-subject"), Some(subject_digest.to_string().as_str()));
    let listed = server.get(&path).await.json();
    assert_eq!(listed["manifests"][0]["artifactType"], "application/x-signature");
    assert_eq!(listed["manifests"][0]["annotations"]["by"], "somebody");
    let other = server.get(&format!("{path}?artifactType=application/x-other")).await;
    assert_eq!(other.header("oci-filters-applied"), Some("artifactType"));
    assert_eq!(other.json()["manifests"], json!([]));

    let digest = Digest::of(signature.to_string().as_bytes());
    let path_of_signature = format!("/v2/a/manifests/{digest}");
    assert_eq!(request("DELETE", &path_of_signature).send(server.address).await.status, 202);
    assert_eq!(server.get(&path).await.json()["manifests"], json!([]));
}
