//! The image that tests run: Debian's static busybox.

use std::io::Write;

use minke_common_model::digest::Digest;

/// Its name.
pub const IMAGE: &str = "busybox:latest";

const APPLETS: [&str; 67] = [
    "addgroup",
    "adduser",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hostname",
    "id",
    "ip",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mount",
    "mv",
    "nc",
    "nslookup",
    "ping",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "top",
    "touch",
    "tr",
    "true",
    "tty",
    "ulimit",
    "uniq",
    "unshare",
    "wc",
    "wget",
    "which",
    "xargs",
];

/// The layer, as a tar.
pub fn image_layer() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("the package busybox-static is installed");
    let mut tar = tar::Builder::new(Vec::new());
    let mut add =
        |path: &str, kind: tar::EntryType, mode: u32, uid: u64, link: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(uid);
            header.set_gid(uid);
            header.set_mtime(1_700_000_000);
            header.set_size(data.len() as u64);
            if link.is_empty() {
                tar.append_data(&mut header, path, data).unwrap();
            } else {
                tar.append_link(&mut header, path, link).unwrap();
            }
        };
    for (directory, mode, uid) in [
        ("bin", 0o755, 0),
        ("etc", 0o755, 0),
        ("tmp", 0o1777, 0),
        ("root", 0o700, 0),
        ("var", 0o755, 0),
        ("var/data", 0o750, 12),
    ] {
        add(directory, tar::EntryType::Directory, mode, uid, "", b"");
    }
    add("bin/busybox", tar::EntryType::Regular, 0o755, 0, "", &busybox);
    for applet in APPLETS {
        add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, 0, "busybox", b"");
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:12:34:app:/tmp:/bin/sh\n";
    add("etc/passwd", tar::EntryType::Regular, 0o644, 0, "", passwd);
    add("etc/group", tar::EntryType::Regular, 0o644, 0, "", b"root:x:0:\napp:x:34:\n");
    add("var/data/seed", tar::EntryType::Regular, 0o640, 12, "", b"from the image\n");
    tar.into_inner().unwrap()
}

/// The configuration of the image with this layer.
pub fn image_config(layer: &[u8]) -> Vec<u8> {
    let diff_id = Digest::of(layer).hex();
    format!(
        r#"{{"architecture":"{}","os":"linux","created":"2024-01-02T03:04:05Z",
        "config":{{"Env":["PATH=/bin"],"Cmd":["sh"],"Labels":{{"made-by":"test"}}}},
        "rootfs":{{"type":"layers","diff_ids":["sha256:{diff_id}"]}},
        "history":[{{"created":"2024-01-02T03:04:05Z","created_by":"test"}}]}}"#,
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    )
    .into_bytes()
}

/// The image as an archive for `docker load`.
pub fn image_archive() -> Vec<u8> {
    archive_of(&image_layer(), IMAGE)
}

/// An image of one layer as an archive.
pub fn archive_of(layer: &[u8], name: &str) -> Vec<u8> {
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":["layer.tar"]}}]"#);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in [
        ("config.json", image_config(layer).as_slice()),
        ("layer.tar", layer),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data).unwrap();
    }
    let mut bytes = tar.into_inner().unwrap();
    bytes.flush().unwrap();
    bytes
}
