//! Users and groups as an image's `/etc/passwd` and `/etc/group` name them.

use std::io;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::SpecError;

/// Longest passwd or group file that is read, bytes.
const LIMIT: u64 = 1 << 20;

/// The highest id of a user or group, as Docker has it. The kernel takes the very highest number for "as
/// it was": a program that asked for that user would be root.
const HIGHEST: u32 = i32::MAX as u32;

/// The texts of the two files; empty if an image has none.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Text of `/etc/passwd`.
    pub passwd: String,
    /// Text of `/etc/group`.
    pub group: String,
}

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory, `/` if the user has none.
    pub home: String,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Reads a file that was found by name. Nothing else is opened: behind a device that the container has put
/// there, its driver would see an opening by the host's root. Where no `/proc` is, as in the views of a
/// container that copies are made of, there are no devices either, and it may be opened `again`.
fn read_regular(
    found: &OwnedFd,
    path: &str,
    again: impl FnOnce() -> Result<OwnedFd, Errno>,
) -> io::Result<String> {
    let check = |file: &OwnedFd| {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode);
        match kind == FileType::RegularFile {
            true => Ok(()),
            false => Err(io::Error::other(format!("{path} of the container is no regular file"))),
        }
    };
    check(found)?;
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    let file = match std::fs::File::open(itself) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = again()?;
            check(&file)?;
            file.into()
        }
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Accounts {
    /// Read both files below a root file system; symbolic links cannot lead out of it.
    pub fn read(rootfs: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(
            rootfs,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let read = |path: &str| -> io::Result<String> {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&root, path, flags, Mode::empty(), inside) {
                Ok(found) => {
                    let again = || {
                        let flags =
                            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                        rustix::fs::openat2(&root, path, flags, Mode::empty(), inside)
                    };
                    read_regular(&found, path, again)
                }
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(String::new()),
                Err(error) => Err(error.into()),
            }
        };
        Ok(Self { passwd: read("etc/passwd")?, group: read("etc/group")? })
    }

    /// Resolve `user[:group]` and further groups. An empty user is root.
    ///
    /// No id is above [`HIGHEST`].
    pub fn resolve(&self, text: &str, further: &[String]) -> Result<Identity, SpecError> {
        let (user_text, group_text) = match text.split_once(':') {
            Some((user, group)) => (user, group),
            None => (text, ""),
        };
        let number = user_text.parse::<u32>().ok();
        let known = self.users().find(|user| match number {
            Some(uid) => user.uid == uid || user.name == user_text,
            None if user_text.is_empty() => user.uid == 0,
            None => user.name == user_text,
        });
        let uid = match (&known, number) {
            (Some(user), _) => user.uid,
            (None, Some(uid)) => uid,
            (None, None) if user_text.is_empty() => 0,
            (None, None) => return Err(SpecError::UnknownUser(user_text.to_owned())),
        };
        let mut groups = Vec::new();
        let gid = if group_text.is_empty() {
            if let Some(user) = &known {
                groups.extend(self.groups_of(user.name));
            }
            known.as_ref().map_or(0, |user| user.gid)
        } else {
            self.group_number(group_text)?
        };
        for group in further {
            groups.push(self.group_number(group)?);
        }
        groups.sort_unstable();
        groups.dedup();
        if [uid, gid].iter().chain(&groups).any(|id| *id > HIGHEST) {
            return Err(SpecError::IdOutOfRange);
        }
        let home = known.as_ref().map_or("", |user| user.home);
        let home = if home.is_empty() { "/" } else { home }.to_owned();
        Ok(Identity { uid, gid, groups, home })
    }

    fn group_number(&self, text: &str) -> Result<u32, SpecError> {
        if let Some(group) = self.groups().find(|group| group.name == text) {
            return Ok(group.gid);
        }
        text.parse().map_err(|_| SpecError::UnknownGroup(text.to_owned()))
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let member = |group: &Group<'_>| group.members.split(',').any(|name| name == user);
        self.groups().filter(member).map(|group| group.gid).collect()
    }

    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(User { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some(Group { name, gid, members: fields.next().unwrap_or_default() })
        })
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;

    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nmail:x:8:12:m:/var/mail:/bin/false\n\
                     42:x:1042:1042::/home/42:/bin/sh\nbroken\n"
                .to_owned(),
            group: "root:x:0:\nmail:x:12:\ndialout:x:20:mail,root\nvideo:x:27:mail\n".to_owned(),
        }
    }

    #[test]
    fn a_user_brings_its_group_home_and_memberships() {
        let who = accounts().resolve("mail", &[]).unwrap();
        assert_eq!(
            who,
            Identity { uid: 8, gid: 12, groups: vec![20, 27], home: "/var/mail".into() }
        );
    }

    #[test]
    fn numbers_need_no_entry_and_names_do() {
        let who = accounts().resolve("5000:6000", &[]).unwrap();
        assert_eq!((who.uid, who.gid, who.home.as_str()), (5000, 6000, "/"));
        assert_eq!(accounts().resolve("5000", &[]).unwrap().gid, 0);
        let error = accounts().resolve("nobody", &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert!(matches!(accounts().resolve("8:x", &[]), Err(SpecError::UnknownGroup(_))));
    }

    #[test]
    fn a_stated_group_replaces_memberships_and_group_add_adds() {
        let who = accounts().resolve("mail:root", &["video".into(), "99".into()]).unwrap();
        assert_eq!((who.gid, who.groups), (0, vec![27, 99]));
    }

    #[test]
    fn an_image_without_files_has_a_root() {
        let who = Accounts::default().resolve("", &[]).unwrap();
        assert_eq!((who.uid, who.gid, who.home.as_str()), (0, 0, "/"));
    }

    #[test]
    fn ids_that_the_kernel_takes_for_others_are_refused() {
        let all = "4294967295 2147483648 0:4294967295 evil 8:evil".split(' ');
        let bad = Accounts {
            passwd: "evil:x:4294967295:1::/:/bin/sh\nmail:x:8:12:m::\n".to_owned(),
            group: "evil:x:4294967295:\nmany:x:4294967295:mail\n".to_owned(),
        };
        for text in all.chain(["mail"]) {
            let error = bad.resolve(text, &[]).unwrap_err().to_string();
            assert!(error.contains("must be in range 0-2147483647"), "{text}: {error}");
        }
        assert!(bad.resolve("9", &["4294967295".into()]).is_err());
        assert_eq!(bad.resolve("2147483647", &[]).unwrap().uid, HIGHEST);
    }

    #[test]
    fn only_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        // Whoever opens it for reading waits for a writer, or is seen by one.
        let pipe = etc.join("passwd");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let error = Accounts::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("etc/passwd") && error.contains("no regular file"), "{error}");
        std::fs::remove_file(&pipe).unwrap();
        std::fs::create_dir(&pipe).unwrap();
        assert!(Accounts::read(dir.path()).is_err());
    }

    #[test]
    fn links_do_not_lead_out_of_the_root_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc/passwd", etc.join("passwd")).unwrap();
        assert!(
            Accounts::read(dir.path()).is_err() || {
                let read = Accounts::read(dir.path()).unwrap();
                read.passwd.is_empty()
            }
        );
    }
}
