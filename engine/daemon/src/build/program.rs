//! Unpacking by a program of the host: for what is packed in ways that few archives use.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::build::confine::confine;

/// Most memory of a program: an archive says how much it takes to unpack it, up to 4 GiB.
const MEMORY: u64 = 256 << 20;
/// What xz reads besides its arguments. Its own limit comes first, so that it says what is wrong; more
/// threads would take more memory. Its warnings are no failures. Others of that name do not look at it.
const XZ_OPTIONS: &str = "--memlimit-decompress=128MiB --threads=1 --no-warn";

/// A program that unpacks what a thread gives it.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    output: ChildStdout,
    /// Why no more could be given to it.
    broken: Arc<Mutex<Option<io::Error>>>,
}

impl Program {
    /// Starts the program of this name on `packed`.
    pub(crate) fn start(
        name: &'static str,
        packed: impl Read + Send + 'static,
    ) -> io::Result<Program> {
        let mut command = Command::new(name);
        command
            .arg("-dc")
            .env("XZ_OPT", XZ_OPTIONS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        confine(&mut command, MEMORY);
        let mut child = command.spawn().map_err(|error| {
            let why = format!("unpacking an archive of {name} takes the program {name}: {error}");
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(io::Error::other("a program without pipes"));
        };
        let program = Program { name, child, output, broken: Arc::default() };
        let broken = program.broken.clone();
        let feed = move || feed(packed, input, &broken);
        std::thread::Builder::new().name("archive-feed".to_owned()).spawn(feed)?;
        Ok(program)
    }
}

/// Gives a program all of `packed`. An error of it is noted before the program sees an end.
fn feed(mut packed: impl Read, mut input: ChildStdin, broken: &Mutex<Option<io::Error>>) {
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        match packed.read(&mut buffer) {
            Ok(0) => return,
            // A program that takes no more has ended, and its status says how.
            Ok(got) if input.write_all(&buffer[..got]).is_err() => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return;
            }
        }
    }
}

impl Read for Program {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.output.read(buffer)?;
        if got > 0 || buffer.is_empty() {
            return Ok(got);
        }
        // What it has said until it failed would pass for the whole archive.
        let status = self.child.wait()?;
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        match broken {
            Some(error) => Err(error),
            None if status.success() => Ok(0),
            None => {
                let (name, most) = (self.name, MEMORY >> 20);
                let why = format!(
                    "{name} cannot unpack the archive: it is damaged, or takes more than the {most} MiB of memory that are the limit"
                );
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then only its status is taken.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(arguments: &[&str], text: &[u8]) -> Vec<u8> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let (name, arguments) = arguments.split_first().unwrap();
        Command::new(name).args(arguments).arg(file.path()).output().unwrap().stdout
    }

    fn unpacked(name: &'static str, packed: impl Read + Send + 'static) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Program::start(name, packed)?.read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn programs_unpack_and_what_they_cannot_is_an_error() {
        let text = b"a text that is a little longer than a few bytes ".repeat(9000);
        for name in ["bzip2", "xz", "zstd"] {
            let whole = packed(&[name, "-c"], &text);
            let half = whole[..whole.len() / 2].to_vec();
            assert_eq!(unpacked(name, io::Cursor::new(whole)).unwrap(), text, "{name}");
            let error = unpacked(name, io::Cursor::new(half)).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = Program::start("no-such-program", io::empty()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }

    /// Bytes, then an error.
    struct Breaks(io::Cursor<Vec<u8>>);

    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::new(io::ErrorKind::TimedOut, "it stopped coming")),
                got => Ok(got),
            }
        }
    }

    #[test]
    fn an_error_of_what_is_packed_is_said_even_after_a_whole_stream() {
        let whole = packed(&["xz", "-c"], b"text");
        let error = unpacked("xz", Breaks(io::Cursor::new(whole))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    /// An archive of xz whose block says another size of the dictionary.
    fn with_dictionary(mut whole: Vec<u8>, size: u8) -> Vec<u8> {
        // The block's header comes after the stream's, which has 12 bytes, and ends with its sum.
        let length = (usize::from(whole[12]) + 1) * 4;
        let header = &mut whole[12..12 + length];
        let filter = header.windows(2).position(|pair| pair == [0x21, 1]).unwrap();
        header[filter + 2] = size;
        let mut sum = flate2::Crc::new();
        sum.update(&header[..length - 4]);
        header[length - 4..].copy_from_slice(&sum.sum().to_le_bytes());
        whole
    }

    #[test]
    fn an_archive_that_takes_much_memory_is_refused_with_the_limit() {
        let whole = packed(&["xz", "-c", "--threads=1"], b"text");
        // 96 MiB, then 192 MiB, which this machine would have.
        let modest = unpacked("xz", io::Cursor::new(with_dictionary(whole.clone(), 29)));
        assert_eq!(modest.unwrap(), b"text");
        let error = unpacked("xz", io::Cursor::new(with_dictionary(whole, 31))).unwrap_err();
        assert!(error.to_string().contains("256 MiB of memory that are the limit"), "{error}");
    }
}
