//! Images and root file systems that come packed, in every way that Docker takes.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Site, docker28, image_archive, image_layer};

fn packed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut command = Command::new(program);
    let output = command.arg("-c").arg(file.path()).stderr(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program}");
    output.stdout
}

#[test]
fn images_are_loaded_and_imported_however_they_are_packed() {
    let site = Site::empty(&[]);
    let (archive, root) = (image_archive(), image_layer());
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let whole = packed(program, &archive);
        let loaded = site.command(&docker28(), &["load"], &whole).ok();
        assert!(loaded.contains("Loaded image: busybox:latest"), "{program}: {loaded}");
        site.command(&docker28(), &["import", "-", program], &packed(program, &root)).ok();
        let run = ["run", "--rm", "--net", "none", program, "/bin/busybox", "echo", "works"];
        assert_eq!(site.docker(&run).ok(), "works\n", "{program}");
        site.docker(&["rmi", "busybox", program]).ok();
        let half = site.command(&docker28(), &["load"], &whole[..whole.len() / 2]);
        assert_ne!(half.code, 0, "{program}: {half:?}");
        let half = site.command(&docker28(), &["import", "-", "half"], &whole[..whole.len() / 2]);
        assert_ne!(half.code, 0, "{program}: {half:?}");
        assert_eq!(site.docker(&["images", "-aq"]).ok(), "", "{program}");
    }
}
