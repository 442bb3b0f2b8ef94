//! Blobs on their way in and out: whole, in chunks, resumed, mounted, damaged.

use minke_cloud_blobs::Digest;
use minke_cloud_registry::Auth;

use crate::fixture::{Server, serve};
use crate::http::{Answer, request};

fn location(answer: &Answer) -> String {
    answer.header("location").expect("a location").to_owned()
}

async fn begin(server: &Server) -> String {
    let answer = request("POST", "/v2/a/b/blobs/uploads/").send(server.address).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("range"), Some("0-0"));
    location(&answer)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|number| (number * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn a_blob_in_chunks_comes_back_whole_and_in_parts() {
    let server = Server::open().await;
    let blob = bytes(300_000);
    let upload = begin(&server).await;
    let chunk = request("PATCH", &upload).header("content-range", "0-99999");
    let answer = chunk.body(&blob[..100_000]).send(server.address).await;
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-99999")));
    // Without a range, a chunk goes to the end.
    let answer = request("PATCH", &upload).body(&blob[100_000..200_000]).send(server.address).await;
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-199999")));
    let digest = Digest::of(&blob);
    let last = request("PUT", &format!("{upload}?digest={digest}")).body(&blob[200_000..]);
    let answer = last.send(server.address).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(location(&answer), format!("/v2/a/b/blobs/{digest}"));

    let path = location(&answer);
    let whole = server.get(&path).await;
    assert_eq!(whole.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert!(whole.body == blob);
    let part = request("GET", &path).header("range", "bytes=1000-1999").send(server.address).await;
    assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 1000-1999/300000")));
    assert!(part.body == blob[1000..2000]);
    let tail = request("GET", &path).header("range", "bytes=-5").send(server.address).await;
    assert!(tail.status == 206 && tail.body == blob[299_995..]);
    let beyond = request("GET", &path).header("range", "bytes=300000-").send(server.address).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */300000")));
    let head = request("HEAD", &path).send(server.address).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("300000")));
}

#[tokio::test]
async fn a_chunk_out_of_order_is_told_where_to_go_on() {
    let server = Server::open().await;
    let upload = begin(&server).await;
    request("PATCH", &upload).body("12345").send(server.address).await;
    for range in ["0-4", "6-9"] {
        let chunk = request("PATCH", &upload).header("content-range", range).body("67890");
        let answer = chunk.send(server.address).await;
        assert_eq!((answer.status, answer.header("range")), (416, Some("0-4")), "{range}");
        assert_eq!(location(&answer), upload);
    }
    let odd = request("PATCH", &upload).header("content-range", "x-y").body("6");
    assert_eq!(odd.send(server.address).await.status, 400);
    let status = server.get(&upload).await;
    assert_eq!((status.status, status.header("range")), (204, Some("0-4")));
}

#[tokio::test]
async fn a_truncated_upload_is_resumed_even_by_the_next_process() {
    let server = Server::open().await;
    let blob = bytes(2_000_000);
    let upload = begin(&server).await;
    request("PATCH", &upload).body(&blob[..]).cut_after(server.address, 1_500_000).await;
    let status = server.get(&upload).await;
    assert_eq!(status.header("range"), Some("0-1499999"));

    let (_registry, again) = serve(server.dir.path(), Auth::Open).await;
    let digest = Digest::of(&blob);
    let rest = request("PUT", &format!("{upload}?digest={digest}"))
        .header("content-range", "1500000-1999999")
        .body(&blob[1_500_000..]);
    assert_eq!(rest.send(again).await.status, 201);
    let read = request("GET", &format!("/v2/a/b/blobs/{digest}")).send(again).await;
    assert!(read.body == blob);
}

#[tokio::test]
async fn a_truncated_single_request_leaves_nothing() {
    let server = Server::open().await;
    let blob = bytes(100_000);
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(&blob));
    request("POST", &path).body(&blob[..]).cut_after(server.address, 50_000).await;
    assert_eq!(server.head_blob("a", &blob).await, 404);
    let staged = std::fs::read_dir(server.dir.path().join("staging")).unwrap().count();
    assert_eq!(staged, 0);
}

#[tokio::test]
async fn a_digest_that_lies_is_refused() {
    let server = Server::open().await;
    let lie = Digest::of(b"something else");
    let path = format!("/v2/a/blobs/uploads/?digest={lie}");
    let answer = request("POST", &path).body("content").send(server.address).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"));
    let upload = begin(&server).await;
    request("PATCH", &upload).body("content").send(server.address).await;
    let answer = request("PUT", &format!("{upload}?digest={lie}")).send(server.address).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(server.get(&upload).await.status, 404, "the upload is gone");
    for lie in [lie, Digest::of(b"content")] {
        assert_eq!(server.get(&format!("/v2/a/blobs/{lie}")).await.code(), "BLOB_UNKNOWN");
    }
    for odd in ["sha256:xyz", "md5:00", "../../etc/passwd"] {
        let path = format!("/v2/a/blobs/uploads/?digest={odd}");
        assert_eq!(request("POST", &path).send(server.address).await.code(), "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn an_upload_can_be_cancelled() {
    let server = Server::open().await;
    let upload = begin(&server).await;
    assert_eq!(request("DELETE", &upload).send(server.address).await.status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = request(method, &upload).send(server.address).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, "BLOB_UPLOAD_UNKNOWN"),
            "{method}"
        );
    }
}

#[tokio::test]
async fn a_blob_is_seen_only_where_it_was_pushed_or_mounted() {
    let server = Server::open().await;
    assert_eq!(server.push_blob("a", b"layer").await.status, 201);
    assert_eq!(server.head_blob("a", b"layer").await, 200);
    assert_eq!(server.head_blob("b", b"layer").await, 404);
    let digest = Digest::of(b"layer");
    let mount = |from: &str| {
        let path = format!("/v2/b/blobs/uploads/?mount={digest}&from={from}");
        request("POST", &path).send(server.address)
    };
    assert_eq!(mount("nowhere").await.status, 202, "told to upload instead");
    assert_eq!(mount("a").await.status, 201);
    assert_eq!(server.head_blob("b", b"layer").await, 200);
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(request("DELETE", &path).send(server.address).await.status, 202);
    assert_eq!(server.head_blob("a", b"layer").await, 404);
    assert_eq!(server.head_blob("b", b"layer").await, 200);
}

#[tokio::test]
async fn the_same_blob_pushed_by_many_at_once_is_whole() {
    let server = Server::open().await;
    let blob = bytes(3_000_000);
    let digest = Digest::of(&blob);
    let pushes = (0..8).map(|number| {
        let path = format!("/v2/repo-{}/blobs/uploads/?digest={digest}", number % 2);
        tokio::spawn(request("POST", &path).body(&blob[..]).send(server.address))
    });
    for push in pushes.collect::<Vec<_>>() {
        assert_eq!(push.await.unwrap().status, 201);
    }
    for repo in ["repo-0", "repo-1"] {
        let read = server.get(&format!("/v2/{repo}/blobs/{digest}")).await;
        assert!(read.body == blob);
    }
}

#[tokio::test]
async fn two_requests_on_one_upload_do_not_mix() {
    let server = Server::open().await;
    let upload = begin(&server).await;
    let chunk =
        |byte: u8| request("PATCH", &upload).body(vec![byte; 1_000_000]).send(server.address);
    let (one, two) = tokio::join!(chunk(1), chunk(2));
    assert_eq!((one.status, two.status), (202, 202));
    let (ones, twos) = (vec![1; 1_000_000], vec![2; 1_000_000]);
    let either = [[ones.clone(), twos.clone()].concat(), [twos, ones].concat()];
    let staged = std::fs::read_dir(server.dir.path().join("staging")).unwrap();
    let stored = std::fs::read(staged.map(|entry| entry.unwrap().path()).next().unwrap()).unwrap();
    assert!(either.contains(&stored), "{} bytes", stored.len());
    let digest = Digest::of(&stored);
    let finished = request("PUT", &format!("{upload}?digest={digest}")).send(server.address).await;
    assert_eq!(finished.status, 201);
}
