//! Packing a project into the gzipped tar that the builder takes.
//!
//! What `.dockerignore` leaves out stays out, but for what the builder reads itself. The tar holds no
//! owner and no times, so that the same project gives the same bytes.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::ProgressBar;
use minke_common_dockerfile::ignore::Ignore;

/// The most that the builder takes: files, folders and links, and bytes before compression.
const MAX_FILES: usize = 200_000;
const MAX_BYTES: u64 = 4 << 30;

/// A packed project.
pub struct Packed {
    /// The gzipped tar, from its beginning. It has no name: it goes with this process, however that ends.
    pub file: File,
    /// Files, folders and links in it.
    pub entries: usize,
    /// Bytes of the files in it.
    pub bytes: u64,
}

/// Packs the folder `source`, whose Dockerfile may have a name of its own. `bar` counts entries.
pub fn pack(source: &Path, dockerfile: Option<&str>, bar: &ProgressBar) -> Result<Packed> {
    let metadata = std::fs::metadata(source)
        .with_context(|| format!("cannot read the project folder {}", source.display()))?;
    if !metadata.is_dir() {
        bail!("{} is not a folder; a project is a folder", source.display());
    }
    let choice = Choice { ignore: read_ignore(source)?, dockerfile };
    let mut found = Vec::new();
    collect(source, Path::new(""), &choice, &mut found)?;
    if !found.iter().any(|entry| choice.is_project_file(&entry.name)) {
        let named = dockerfile.map(|name| format!(", nor {name}")).unwrap_or_default();
        bail!(
            "{} holds no project: neither docker-compose.yml nor a Dockerfile{named}",
            source.display()
        );
    }
    bar.set_length(found.len() as u64);
    write(source, &found, bar)
}

struct Entry {
    /// Relative to the project, with `/` between its parts.
    name: String,
    metadata: Metadata,
}

/// What belongs into the tar.
struct Choice<'a> {
    ignore: Ignore,
    /// What `--dockerfile` names.
    dockerfile: Option<&'a str>,
}

impl Choice<'_> {
    fn keeps(&self, name: &str) -> bool {
        self.is_always_sent(name) || !self.ignore.excludes(name)
    }

    /// What the builder needs although the images do not.
    fn is_always_sent(&self, name: &str) -> bool {
        self.is_project_file(name)
            || self.leads_to_dockerfile(name)
            || name == ".dockerignore"
            || name == ".balena"
            || name.starts_with(".balena/")
    }

    fn is_project_file(&self, name: &str) -> bool {
        if self.dockerfile == Some(name) {
            return true;
        }
        let name = name.to_lowercase();
        matches!(
            name.as_str(),
            "docker-compose.yml" | "docker-compose.yaml" | "compose.yml" | "compose.yaml"
        ) || name == "dockerfile"
            || name.starts_with("dockerfile.")
            || name.ends_with("/dockerfile")
    }

    /// Whether this is a folder above the file that `--dockerfile` names.
    fn leads_to_dockerfile(&self, name: &str) -> bool {
        let below = self.dockerfile.and_then(|file| file.strip_prefix(name));
        below.is_some_and(|rest| rest.starts_with('/'))
    }
}

fn read_ignore(source: &Path) -> Result<Ignore> {
    let path = source.join(".dockerignore");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    Ignore::parse(&text).with_context(|| format!("cannot use {}", path.display()))
}

/// Finds what belongs into the tar, in the order of names.
fn collect(source: &Path, below: &Path, choice: &Choice, found: &mut Vec<Entry>) -> Result<()> {
    let folder = source.join(below);
    let said = || format!("cannot read the folder {}", folder.display());
    let mut names: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(said)?
        .map(|entry| Ok(below.join(entry?.file_name())))
        .collect::<std::io::Result<_>>()
        .with_context(said)?;
    names.sort();
    for path in names {
        let name = slashed(&path)?;
        let metadata = std::fs::symlink_metadata(source.join(&path))
            .with_context(|| format!("cannot read {name}"))?;
        let kept = choice.keeps(&name);
        if metadata.is_dir() {
            // An exception may bring back something below a folder that is left out.
            let entered = kept || !choice.ignore.prunes(&name);
            if kept {
                found.push(Entry { name, metadata });
            }
            if entered {
                collect(source, &path, choice, found)?;
            }
        } else if kept && (metadata.is_file() || metadata.is_symlink()) {
            found.push(Entry { name, metadata });
        }
        if found.len() > MAX_FILES {
            bail!(
                "the project has more than {MAX_FILES} files; list what is not needed in .dockerignore"
            );
        }
    }
    Ok(())
}

fn slashed(path: &Path) -> Result<String> {
    let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
    Ok(parts.with_context(|| format!("the name {} is not UTF-8", path.display()))?.join("/"))
}

fn write(source: &Path, found: &[Entry], bar: &ProgressBar) -> Result<Packed> {
    let file = tempfile::tempfile().context("cannot make a temporary file")?;
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
    let mut bytes = 0;
    for entry in found {
        bytes += append(&mut tar, source, entry)
            .with_context(|| format!("cannot pack {}", entry.name))?;
        if bytes > MAX_BYTES {
            bail!(
                "the project is larger than {} GiB; list what is not needed in .dockerignore",
                MAX_BYTES >> 30
            );
        }
        bar.inc(1);
    }
    let finish = || -> std::io::Result<File> {
        let mut file = tar.into_inner()?.finish()?;
        file.rewind()?;
        Ok(file)
    };
    let file = finish().context("cannot finish the archive")?;
    Ok(Packed { file, entries: found.len(), bytes })
}

fn append(tar: &mut tar::Builder<impl Write>, source: &Path, entry: &Entry) -> Result<u64> {
    let path = source.join(&entry.name);
    let mut header = tar::Header::new_gnu();
    header.set_metadata_in_mode(&entry.metadata, tar::HeaderMode::Deterministic);
    if entry.metadata.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, &entry.name, std::fs::read_link(&path)?)?;
        return Ok(0);
    }
    if entry.metadata.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        tar.append_data(&mut header, &entry.name, std::io::empty())?;
        return Ok(0);
    }
    let size = entry.metadata.len();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    // A file that grows meanwhile is cut, one that shrinks is an error: the header is written.
    let mut content = File::open(&path)?.take(size);
    tar.append_data(&mut header, &entry.name, &mut content)?;
    if content.limit() != 0 {
        bail!("it became shorter while it was being packed");
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;

    fn packed_names(files: &[(&str, &str)], dockerfile: Option<&str>) -> Result<Vec<String>> {
        let folder = tempfile::tempdir()?;
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().context("no folder")?)?;
            std::fs::write(path, text)?;
        }
        let packed = pack(folder.path(), dockerfile, &ProgressBar::hidden())?;
        let mut archive = tar::Archive::new(GzDecoder::new(packed.file));
        let names = archive
            .entries()?
            .map(|entry| Ok(entry?.path()?.to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        Ok(names.into_iter().map(|name| name.trim_end_matches('/').to_owned()).collect())
    }

    #[test]
    fn what_is_ignored_stays_out_and_exceptions_come_back() {
        let files = [
            ("Dockerfile", "FROM busybox"),
            (".dockerignore", "node_modules\n*.log\n!keep.log\nDockerfile\n"),
            ("node_modules/a/b.js", ""),
            ("x.log", ""),
            ("keep.log", ""),
            ("src/main.c", ""),
        ];
        let names = packed_names(&files, None);
        let expected = [".dockerignore", "Dockerfile", "keep.log", "src", "src/main.c"];
        assert_eq!(names.unwrap(), expected);
    }

    #[test]
    fn a_folder_without_a_project_is_refused() {
        let error = packed_names(&[("readme.txt", "hello")], None).unwrap_err();
        assert!(error.to_string().contains("holds no project"), "{error}");
        let error = packed_names(&[("readme.txt", "hello")], Some("app.dockerfile")).unwrap_err();
        assert!(error.to_string().contains("nor app.dockerfile"), "{error}");
    }

    #[test]
    fn a_dockerfile_with_a_name_of_its_own_makes_a_project_and_is_sent_even_if_it_is_ignored() {
        let file = ("app.dockerfile", "FROM busybox");
        assert_eq!(packed_names(&[file], Some(file.0)).unwrap(), [file.0]);
        let ignored = [file, (".dockerignore", "*.dockerfile\n"), ("b.dockerfile", "")];
        assert_eq!(packed_names(&ignored, Some(file.0)).unwrap(), [".dockerignore", file.0]);
        let below = [
            ("deploy/one/app", "FROM busybox"),
            ("deploy/secret", ""),
            ("deploy.txt", ""),
            (".dockerignore", "deploy*\n"),
        ];
        let sent = [".dockerignore", "deploy", "deploy/one", "deploy/one/app"];
        assert_eq!(packed_names(&below, Some("deploy/one/app")).unwrap(), sent);
    }

    #[cfg(unix)]
    #[test]
    fn the_archive_has_no_name_that_could_stay() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM busybox").unwrap();
        let packed = pack(folder.path(), None, &ProgressBar::hidden()).unwrap();
        assert_eq!(packed.file.metadata().unwrap().nlink(), 0);
    }

    #[test]
    fn the_same_project_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM busybox").unwrap();
        let bytes = || {
            let mut packed = pack(folder.path(), None, &ProgressBar::hidden()).unwrap();
            let mut bytes = Vec::new();
            packed.file.read_to_end(&mut bytes).unwrap();
            assert!(!bytes.is_empty());
            bytes
        };
        assert_eq!(bytes(), bytes());
    }
}
