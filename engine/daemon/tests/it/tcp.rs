//! The API over TCP: with certificates on both sides, and not without them.

use std::path::Path;

use crate::support::{Site, docker28, engine, shim};

/// An authority with a server's and a client's certificate, as the docker CLI wants them.
fn certificates(dir: &Path) {
    std::fs::create_dir_all(dir.join("client")).unwrap();
    let script = r#"
        set -e
        new() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                -keyout "$1" -out "$2" -subj "/CN=$3" $4 2>/dev/null; }
        new ca.key ca.pem authority
        for who in server client; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $who.key \
                -out $who.csr -subj "/CN=$who" 2>/dev/null
            printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=%sAuth\n' $who > $who.ext
            openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile $who.ext -out $who.pem 2>/dev/null
        done
        cp server.pem cert.pem; cp server.key key.pem
        cp ca.pem client/ca.pem; cp client.pem client/cert.pem; cp client.key client/key.pem
        mkdir stranger; cp ca.pem stranger/ca.pem; new stranger/key.pem stranger/cert.pem stranger
    "#;
    let made = std::process::Command::new("sh").args(["-c", script]).current_dir(dir).status();
    assert!(made.unwrap().success());
}

#[test]
fn clients_with_a_certificate_of_the_authority_come_in_and_nobody_else() {
    let tls = tempfile::tempdir().unwrap();
    certificates(tls.path());
    let address = "127.0.0.1:2376";
    let mut site = Site::empty(&["--tcp", address, "--tls", tls.path().to_str().unwrap()]);
    site.load_image();
    let cli = |who: &str, words: &[&str], input: &[u8]| {
        let certificates = tls.path().join(who);
        let folder = certificates.to_str().unwrap();
        let tls = ["--tlsverify", "-H", "tcp://127.0.0.1:2376"];
        let [ca, cert, key] = ["ca", "cert", "key"].map(|name| format!("{folder}/{name}.pem"));
        let files = ["--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
        site.command(&docker28(), &[&tls[..], &files[..], words].concat(), input)
    };
    let said = cli("client", &["run", "-i", "--rm", "busybox", "cat"], b"over a hijacked stream");
    assert_eq!(said.ok(), "over a hijacked stream");
    let stranger = cli("stranger", &["version"], b"");
    assert_ne!(stranger.code, 0, "{stranger:?}");
    let plain = site.command(&docker28(), &["-H", "tcp://127.0.0.1:2376", "version"], b"");
    assert_ne!(plain.code, 0, "{plain:?}");
    assert_eq!(site.docker(&["ps", "-q"]).ok(), "");
    site.stop_engine();
    // Without certificates loopback alone is taken, and that is said to be dangerous.
    site.restart_with(&["--tcp", address]);
    assert!(site.log().contains("TCP without TLS"));
    let plain = site.command(&docker28(), &["-H", "tcp://127.0.0.1:2376", "info"], b"");
    assert_eq!(plain.code, 0, "{plain:?}");
}

#[test]
fn without_certificates_the_engine_listens_on_no_address_of_others() {
    let dir = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:2376", "[::]:2376", "192.0.2.1:2376"] {
        // An engine that did listen would be ended after a while, with another code.
        let ended = std::process::Command::new("timeout")
            .arg("60")
            .arg(engine())
            .arg("--data")
            .arg(dir.path().join("data"))
            .arg("--socket")
            .arg(dir.path().join("engine.sock"))
            .args(["--tcp", address])
            .env("MINKE_SHIM", shim())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{address}: {said}");
        assert!(said.contains(&format!("listening on {address} without TLS")), "{said}");
        assert!(said.contains("--tls"), "{said}");
    }
}
