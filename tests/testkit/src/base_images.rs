//! The images that projects begin with, made from Debian's packages, for machines that cannot
//! reach Docker Hub: `busybox:latest` and `debian:bookworm-slim`.
//!
//! They are kept in a folder as OCI layouts; only the first time takes a while. Needs root.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Part of the kept folders' names: another recipe is another image.
const RECIPE: u32 = 1;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What Debian's own slim images leave out too.
const SLIM: [&str; 6] = [
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/groff/*",
];

/// The image that [`build_large`] makes, as an engine names it.
pub const LARGE: &str = "debian:bookworm-python";

/// An image: its name, its tag, how it is made, and its default command.
type Image = (&'static str, &'static str, Recipe, &'static str);

/// The images that projects begin with.
const USUAL: [Image; 2] =
    [("busybox", "latest", busybox, "sh"), ("debian", "bookworm-slim", debian, "bash")];

/// Makes the images that `cache` lacks and stores both in the registry at `host:port`.
pub fn build(cache: &Path, registry: &str, say: &mut dyn FnMut(&str)) -> Result<()> {
    store_all(&USUAL, cache, registry, say)
}

/// Makes the images that `cache` lacks, for a [`build`] where Debian's packages cannot be reached.
pub fn prepare(cache: &Path, say: &mut dyn FnMut(&str)) -> Result<()> {
    USUAL.iter().try_for_each(|image| layout(image, cache, say).map(drop))
}

/// The same for an image of some 260 MB, to measure pulls with.
pub fn build_large(cache: &Path, registry: &str, say: &mut dyn FnMut(&str)) -> Result<()> {
    store_all(&[("debian", "bookworm-python", debian_python, "python3")], cache, registry, say)
}

fn store_all(
    images: &[Image],
    cache: &Path,
    registry: &str,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    for image in images {
        let (name, tag, ..) = *image;
        let source = format!("oci:{}:{tag}", layout(image, cache, say)?.display());
        let target = format!("docker://{registry}/library/{name}:{tag}");
        run(Command::new("skopeo").args([
            "copy",
            "--quiet",
            "--insecure-policy",
            "--dest-tls-verify=false",
            &source,
            &target,
        ]))?;
    }
    Ok(())
}

/// The folder in `cache` with the image's layout, which is made if it is not there.
fn layout(image: &Image, cache: &Path, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let (name, tag, recipe, shell) = *image;
    let layout = cache.join(format!("{name}-{tag}-{RECIPE}"));
    if !layout.exists() {
        say(&format!("making the base image {name}:{tag} from Debian packages"));
        make(&layout, tag, recipe, shell)
            .with_context(|| format!("cannot make the base image {name}:{tag}"))?;
    }
    Ok(layout)
}

/// Writes the file system of an image as a tar file; `work` is an empty folder.
type Recipe = fn(work: &Path, tar: &Path) -> Result<()>;

/// Makes the layout beside its place and moves it there when it is whole.
fn make(layout: &Path, tag: &str, recipe: Recipe, shell: &str) -> Result<()> {
    let parent = layout.parent().context("the cache has no folder")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let work = tempfile::tempdir_in(parent).context("cannot make a folder to work in")?;
    let tar = work.path().join("layer.tar");
    let files = work.path().join("files");
    std::fs::create_dir(&files).context("cannot make a folder to work in")?;
    recipe(&files, &tar)?;
    let whole = work.path().join("layout");
    write_layout(&whole, &tar, tag, shell)?;
    std::fs::rename(&whole, layout).with_context(|| format!("cannot write {}", layout.display()))
}

fn busybox(work: &Path, tar: &Path) -> Result<()> {
    // The dynamic program: the static one crashes when it looks names up without libc's files.
    let unpacked = work.join("packages");
    std::fs::create_dir(&unpacked)?;
    run(Command::new("apt-get")
        .current_dir(&unpacked)
        .args(["download", "-qq", "busybox", "libc6"]))?;
    for package in std::fs::read_dir(&unpacked)?.collect::<std::io::Result<Vec<_>>>()? {
        run(Command::new("dpkg-deb").arg("-x").arg(package.path()).arg(&unpacked))?;
    }
    let root = work.join("root");
    for folder in [
        "bin",
        "dev",
        "etc",
        "home",
        "lib",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/bin",
        "var/spool",
    ] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777))?;
    std::fs::set_permissions(root.join("root"), PermissionsExt::from_mode(0o700))?;
    std::fs::copy(unpacked.join("bin/busybox"), root.join("bin/busybox"))?;
    copy_libraries(&unpacked, &root)?;
    let applets = output(Command::new("chroot").arg(&root).args(["/bin/busybox", "--list"]))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    symlink("/bin/env", root.join("usr/bin/env"))?;
    let files = [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
        ),
        ("group", "root:x:0:\nnogroup:x:65534:\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ];
    for (name, text) in files {
        std::fs::write(root.join("etc").join(name), text)?;
    }
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .args(["--sort=name", "--numeric-owner", "-cf"])
        .arg(tar)
        .arg("."))
}

/// The loader and the libraries that busybox names, at the paths where the loader looks.
fn copy_libraries(from: &Path, root: &Path) -> Result<()> {
    let mut copied = 0;
    for name in [
        "libc.so.6",
        "libresolv.so.2",
        "libm.so.6",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    ] {
        for folder in library_folders(&from.join("lib"))? {
            let library = folder.join(name);
            if library.is_file() {
                let target = root.join(folder.strip_prefix(from)?);
                std::fs::create_dir_all(&target)?;
                std::fs::copy(&library, target.join(name))?;
                copied += 1;
                let is_loader = name.starts_with("ld-linux");
                if is_loader {
                    let lib = if name.contains("x86-64") { "lib64" } else { "lib" };
                    std::fs::create_dir_all(root.join(lib))?;
                    std::fs::copy(&library, root.join(lib).join(name))?;
                }
            }
        }
    }
    if copied < 3 {
        bail!("the package libc6 does not hold its libraries where they are expected");
    }
    Ok(())
}

fn library_folders(lib: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(lib).with_context(|| format!("cannot read {}", lib.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

fn debian(_work: &Path, tar: &Path) -> Result<()> {
    debian_with("", tar)
}

fn debian_python(_work: &Path, tar: &Path) -> Result<()> {
    debian_with("python3,python3-numpy,git", tar)
}

/// Debian's minimal system with these packages on top, separated by commas.
fn debian_with(packages: &str, tar: &Path) -> Result<()> {
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", "--variant=minbase"]);
    if !packages.is_empty() {
        mmdebstrap.arg(format!("--include={packages}"));
    }
    for path in SLIM {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    mmdebstrap
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        .arg("--aptopt=Apt::Install-Recommends \"false\"")
        .arg("--customize-hook=rm -f \"$1/etc/hostname\" \"$1/etc/resolv.conf\"")
        .arg("bookworm")
        .arg(tar);
    run(&mut mmdebstrap)
}

/// Writes an OCI layout with one image of one layer.
fn write_layout(layout: &Path, tar: &Path, tag: &str, shell: &str) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let diff_id = sha256(tar)?;
    run(Command::new("gzip").args(["-n", "-6"]).arg(tar))?;
    let layer = store(&blobs, &tar.with_extension("tar.gz"))?;
    let config = json!({
        "architecture": architecture()?,
        "os": "linux",
        "config": { "Env": [PATH], "Cmd": [shell] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
        "history": [{ "created_by": "Debian packages" }],
    });
    let config = store_json(&blobs, layout, &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    });
    let manifest = store_json(&blobs, layout, &manifest)?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    std::fs::write(layout.join("index.json"), index.to_string())?;
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// A stored blob: its digest and its size.
type Blob = (String, u64);

fn descriptor(media_type: &str, (digest, size): &Blob) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

fn store(blobs: &Path, file: &Path) -> Result<Blob> {
    let digest = sha256(file)?;
    let size = std::fs::metadata(file)?.len();
    std::fs::rename(file, blobs.join(&digest))?;
    Ok((digest, size))
}

fn store_json(blobs: &Path, layout: &Path, value: &Value) -> Result<Blob> {
    let file = layout.join("blob.json");
    std::fs::write(&file, value.to_string())?;
    store(blobs, &file)
}

fn sha256(file: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg("-b").arg(file))?;
    Ok(line.split_whitespace().next().context("sha256sum printed nothing")?.to_owned())
}

/// As image configurations name it.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no base images are made for {other}"),
    }
}

fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{program} wrote text that is not UTF-8"))
}
