//! Archives as clients send them: plain, or packed in one of the ways that builds take too.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use flate2::read::MultiGzDecoder;

/// First bytes that say how an archive is packed.
const HEAD: u64 = 6;

/// The plain bytes of an archive. A program that unpacks it is the host's: this is nothing for a thread
/// that sees a container's files.
pub(super) fn open(mut body: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    body.by_ref().take(HEAD).read_to_end(&mut head)?;
    let program = match head[..] {
        [b'B', b'Z', b'h', ..] => Some("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        _ => None,
    };
    let is_gzip = head.starts_with(&[0x1f, 0x8b]);
    let whole = io::Cursor::new(head).chain(body);
    Ok(match program {
        Some(name) => Box::new(Unpacker::start(name, whole)?),
        None if is_gzip => Box::new(MultiGzDecoder::new(whole)),
        None => Box::new(whole),
    })
}

/// A program that unpacks what a thread gives it.
struct Unpacker {
    name: &'static str,
    child: Child,
    output: ChildStdout,
}

impl Unpacker {
    fn start(name: &'static str, mut packed: impl Read + Send + 'static) -> io::Result<Unpacker> {
        let child = Command::new(name)
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.map_err(|error| {
            let why = format!("unpacking an archive of {name} takes the program {name}: {error}");
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(mut input), Some(output)) = (input, output) else {
            return Err(io::Error::other("a program without pipes"));
        };
        let unpacker = Unpacker { name, child, output };
        std::thread::Builder::new().name("archive-feed".to_owned()).spawn(move || {
            // What is wrong with it, its reader meets too.
            let _ = io::copy(&mut packed, &mut input);
        })?;
        Ok(unpacker)
    }
}

impl Read for Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.output.read(buffer)?;
        // What it has said until it failed would pass for the whole archive.
        if got == 0 && !buffer.is_empty() && !self.child.wait()?.success() {
            let why = format!("{} cannot unpack the archive", self.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(got)
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        // It may have ended by itself; then only its status is taken.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn unpacked(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        open(io::Cursor::new(bytes))?.read_to_end(&mut all).map(|_| all)
    }

    fn packed(name: &str, text: &[u8]) -> Vec<u8> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        Command::new(name).arg("-c").arg(file.path()).output().unwrap().stdout
    }

    #[test]
    fn every_member_of_gzip_is_read() {
        let member = |text: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let both = [member(b"one, "), member(b"two")].concat();
        assert_eq!(unpacked(both).unwrap(), b"one, two");
        assert_eq!(unpacked(b"tar".to_vec()).unwrap(), b"tar");
        assert_eq!(unpacked(Vec::new()).unwrap(), b"");
    }

    #[test]
    fn programs_unpack_the_rest_and_what_they_cannot_is_an_error() {
        let text = b"a text that is a little longer than a few bytes ".repeat(9000);
        for name in ["bzip2", "xz", "zstd"] {
            let whole = packed(name, &text);
            assert_eq!(unpacked(whole.clone()).unwrap(), text, "{name}");
            let error = unpacked(whole[..whole.len() / 2].to_vec()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = Unpacker::start("no-such-program", io::empty()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
