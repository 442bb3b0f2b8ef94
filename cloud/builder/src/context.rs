//! The archive that the engine builds a service from: the service's context, with the Dockerfile as
//! it is after its template variables.

use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::project::Recipe;

/// Bytes handed over at a time.
const CHUNK: usize = 256 << 10;

/// Where the Dockerfile stands in the archive.
pub(crate) fn dockerfile_name(recipe: &Recipe) -> String {
    recipe.inside.clone().unwrap_or_else(|| ".dockerfile.from-elsewhere".to_owned())
}

/// Writes the archive into a channel. Blocking; ends early when nobody reads.
pub(crate) fn write(recipe: &Recipe, sender: mpsc::Sender<io::Result<Bytes>>) {
    let mut builder = tar::Builder::new(Pieces { sender: sender.clone(), buffer: Vec::new() });
    builder.follow_symlinks(false);
    let result = fill(recipe, &mut builder).and_then(|()| builder.into_inner()?.flush());
    if let Err(error) = result {
        let _ = sender.blocking_send(Err(error));
    }
}

fn fill(recipe: &Recipe, builder: &mut tar::Builder<Pieces>) -> io::Result<()> {
    let name = dockerfile_name(recipe);
    directory(&recipe.context, "", &name, builder)?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(recipe.text.len() as u64);
    builder.append_data(&mut header, &name, recipe.text.as_bytes())?;
    if recipe.inside.is_none() {
        // The file is no part of the context: `COPY . .` must not see it.
        let mut ignore = recipe.ignore.clone().unwrap_or_default();
        ignore.push_str(&format!("\n{name}\n.dockerignore\n"));
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(ignore.len() as u64);
        builder.append_data(&mut header, ".dockerignore", ignore.as_bytes())?;
    }
    Ok(())
}

fn directory(
    dir: &Path,
    prefix: &str,
    dockerfile: &str,
    builder: &mut tar::Builder<Pieces>,
) -> io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(dir)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let replaced = path == dockerfile
            || (path == ".dockerignore" && dockerfile == ".dockerfile.from-elsewhere");
        // What the CLI sends for the builder is no part of the project.
        if replaced || path == ".git" || path == ".balena" {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            builder.append_dir(&path, entry.path())?;
            directory(&entry.path(), &path, dockerfile, builder)?;
        } else {
            builder.append_path_with_name(entry.path(), &path)?;
        }
    }
    Ok(())
}

/// A writer whose bytes go into a channel.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Pieces {
    fn hand_over(&mut self) -> io::Result<()> {
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        if bytes.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the build ended");
        self.sender.blocking_send(Ok(bytes)).map_err(gone)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Fleet;
    use crate::project::{self, Source, Wishes};

    /// What the engine is sent for the only service of a project.
    fn sent(root: &Path) -> Vec<(String, String)> {
        let fleet = Fleet {
            id: 1,
            slug: "org/fleet".into(),
            name: "fleet".into(),
            user: None,
            device_type: "raspberrypi4-64".into(),
            architecture: "aarch64".into(),
            multicontainer: true,
            build_variables: Vec::new(),
        };
        let project = project::read(root, &fleet, &Wishes::default()).unwrap();
        let Source::Build(recipe) = project.services[0].source.clone() else { panic!("no build") };
        let (sender, mut receiver) = mpsc::channel(64);
        write(&recipe, sender);
        let mut bytes = Vec::new();
        while let Ok(piece) = receiver.try_recv() {
            bytes.extend(piece.unwrap());
        }
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            (path, io::read_to_string(&mut entry).unwrap())
        });
        entries.collect()
    }

    #[test]
    fn a_dockerfile_from_elsewhere_is_hidden_beside_what_the_project_leaves_out() {
        let dir = tempfile::tempdir().unwrap();
        let compose =
            "services:\n  a:\n    build: { context: app, dockerfile_inline: FROM scratch }\n";
        std::fs::write(dir.path().join("docker-compose.yml"), compose).unwrap();
        std::fs::create_dir(dir.path().join("app")).unwrap();
        std::fs::write(dir.path().join("ignored"), "secret").unwrap();
        std::os::unix::fs::symlink("../ignored", dir.path().join("app/.dockerignore")).unwrap();
        let name = ".dockerfile.from-elsewhere";
        assert_eq!(
            sent(dir.path()),
            [
                (name.to_owned(), "FROM scratch".to_owned()),
                (".dockerignore".to_owned(), format!("secret\n{name}\n.dockerignore\n")),
            ]
        );
    }
}
