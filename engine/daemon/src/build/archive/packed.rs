//! How archives are packed, and their plain bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use flate2::bufread::GzDecoder;
use tar::Header;

use super::invalid;
use crate::build::program::Program;

/// First bytes that say how an archive is packed.
const HEAD: u64 = 6;
/// Most bytes of a file that are read to find the first header of a tar in it.
const MAX_LOOK: u64 = 1 << 20;
/// Most members of a gzip stream in a row that hold nothing.
const MAX_EMPTY: u32 = 1000;

/// How a file is packed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    /// By the program of this name.
    Program(&'static str),
}

impl Packing {
    /// By the first six bytes or more.
    fn of(head: &[u8]) -> Packing {
        match head {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [b'B', b'Z', b'h', ..] => Packing::Program("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Program("xz"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Program("zstd"),
            _ => Packing::Plain,
        }
    }
}

/// Says how `file` is packed if it is a tar, packed or not; `None` for anything else. The file is at
/// its beginning afterwards. Blocking.
pub(crate) fn packing(file: &mut File) -> io::Result<Option<Packing>> {
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    let packing = Packing::of(&head);
    // Without a limit, a file that unpacks to nothing would be read to its end.
    let mut reader = open(file.try_clone()?.take(MAX_LOOK), packing)?;
    let mut block = [0u8; 512];
    let whole = reader.read_exact(&mut block).is_ok();
    drop(reader);
    file.seek(SeekFrom::Start(0))?;
    let checked = Header::from_byte_slice(&block);
    let sum = checksum(&block);
    let named = block[0] != 0;
    Ok((whole && named && checked.cksum().ok() == Some(sum)).then_some(packing))
}

/// The sum of a header's bytes with its own field taken as spaces.
fn checksum(block: &[u8; 512]) -> u32 {
    let bytes = block.iter().enumerate();
    bytes.map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum()
}

/// The plain bytes of what is packed so.
pub(crate) fn open(
    packed: impl Read + Send + 'static,
    packing: Packing,
) -> io::Result<Box<dyn Read + Send>> {
    Ok(match packing {
        Packing::Plain => Box::new(packed),
        Packing::Gzip => Box::new(Members::new(BufReader::with_capacity(64 << 10, packed))),
        Packing::Program(name) => Box::new(Program::start(name, packed)?),
    })
}

/// The plain bytes of a stream, however it is packed. A program that unpacks it is the host's: this is
/// nothing for a thread that sees a container's files. Blocking.
pub(crate) fn plain(mut packed: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    packed.by_ref().take(HEAD).read_to_end(&mut head)?;
    let packing = Packing::of(&head);
    open(io::Cursor::new(head).chain(packed), packing)
}

/// A stream out of what only programs unpack. What is packed with gzip or zstd stays so: the store of images
/// unpacks that by itself, within limits of its own. Nothing is read until somebody reads.
pub(crate) enum ForStore {
    Unopened(Box<dyn Read + Send>),
    Open(Box<dyn Read + Send>),
}

impl ForStore {
    pub(crate) fn new(packed: impl Read + Send + 'static) -> ForStore {
        ForStore::Unopened(Box::new(packed))
    }
}

impl Read for ForStore {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let ForStore::Unopened(packed) = self {
            let mut head = Vec::new();
            packed.take(HEAD).read_to_end(&mut head)?;
            let packing = match Packing::of(&head) {
                Packing::Program(name) if name != "zstd" => Packing::Program(name),
                _ => Packing::Plain,
            };
            let packed = std::mem::replace(packed, Box::new(io::empty()));
            *self = ForStore::Open(open(io::Cursor::new(head).chain(packed), packing)?);
        }
        match self {
            ForStore::Open(plain) => plain.read(buffer),
            ForStore::Unopened(_) => Ok(0),
        }
    }
}

/// The bytes of all members of a gzip stream. What comes after them and is none, such as zeros up to a full
/// block, is left out, as gzip does.
struct Members<R> {
    /// None at the end.
    member: Option<GzDecoder<R>>,
    /// Whether this member has held something.
    held: bool,
    empty: u32,
}

impl<R: BufRead> Members<R> {
    fn new(packed: R) -> Self {
        Members { member: Some(GzDecoder::new(packed)), held: false, empty: 0 }
    }

    /// Goes on after the end of a member.
    fn next(&mut self, mut rest: R) -> io::Result<()> {
        self.empty = if self.held { 0 } else { self.empty + 1 };
        self.held = false;
        if self.empty > MAX_EMPTY {
            let text = format!("more than {MAX_EMPTY} empty members of gzip; that is the limit");
            return Err(invalid(text));
        }
        let another = rest.fill_buf()?.first() == Some(&0x1f);
        self.member = another.then(|| GzDecoder::new(rest));
        Ok(())
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member
            && !buffer.is_empty()
        {
            let got = member.read(buffer)?;
            if got > 0 {
                self.held = true;
                return Ok(got);
            }
            if let Some(member) = self.member.take() {
                self.next(member.into_inner())?;
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn member(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        plain(io::Cursor::new(bytes))?.read_to_end(&mut all).map(|_| all)
    }

    fn looked_at(bytes: &[u8]) -> Option<Packing> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let found = packing(&mut file).unwrap();
        assert_eq!(file.stream_position().unwrap(), 0);
        found
    }

    fn tar() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(1);
        builder.append_data(&mut header, "a", &b"x"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn archives_are_known_by_content() {
        for (bytes, expected) in [
            (tar(), Some(Packing::Plain)),
            (member(&tar()), Some(Packing::Gzip)),
            (member(b"just text"), None),
            (b"hello".to_vec(), None),
            (Vec::new(), None),
            (vec![0u8; 1024], None),
        ] {
            assert_eq!(looked_at(&bytes), expected);
        }
    }

    #[test]
    fn only_the_beginning_of_a_file_is_read_to_know_it() {
        // Some of these may come first, but not a mebibyte of them.
        let empty = member(b"");
        let behind = |count: usize| [empty.repeat(count), member(&tar())].concat();
        assert_eq!(looked_at(&behind(10)), Some(Packing::Gzip));
        assert_eq!(looked_at(&behind((MAX_LOOK as usize).div_ceil(empty.len()))), None);
        // The same of xz.
        let xz = |bytes: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            std::process::Command::new("xz").arg("-c").arg(file.path()).output().unwrap().stdout
        };
        let empty = xz(b"");
        let behind = |count: usize| [empty.repeat(count), xz(&tar())].concat();
        assert_eq!(looked_at(&behind(10)), Some(Packing::Program("xz")));
        assert_eq!(looked_at(&behind((MAX_LOOK as usize).div_ceil(empty.len()))), None);
    }

    #[test]
    fn every_member_of_gzip_is_read_and_padding_is_not() {
        let both = [member(b"one, "), member(b""), member(b"two")].concat();
        assert_eq!(unpacked(both.clone()).unwrap(), b"one, two");
        assert_eq!(unpacked([&both[..], &[0; 700]].concat()).unwrap(), b"one, two");
        assert!(unpacked(both[..both.len() - 1].to_vec()).is_err());
        let mut wrong = both;
        *wrong.last_mut().unwrap() ^= 1;
        assert!(unpacked(wrong).is_err());
        let error = unpacked(member(b"").repeat(1002)).unwrap_err();
        assert!(error.to_string().contains("more than 1000 empty members"), "{error}");
        assert_eq!(unpacked(b"tar".to_vec()).unwrap(), b"tar");
        assert_eq!(unpacked(Vec::new()).unwrap(), b"");
    }
}
