//! `--chown=user:group` and `--chmod`: names are those of the image being built.

use crate::build::tree::Tree;

/// Longest `/etc/passwd` or `/etc/group` that is read, in bytes.
const MAX_ACCOUNTS: u64 = 1 << 20;

/// Who new files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Reads `user[:group]`. A number alone is also the group's; a name alone brings the group of the same
/// name, or else the user's own.
pub(crate) fn owner(tree: &Tree, text: &str) -> Result<Owner, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    if let Ok(uid) = user.parse() {
        let gid = group.map(|group| id(tree, group, "etc/group", "group")).transpose()?;
        return Ok(Owner { uid, gid: gid.unwrap_or(uid) });
    }
    let uid = id(tree, user, "etc/passwd", "user")?;
    let gid = match group {
        Some(group) => id(tree, group, "etc/group", "group")?,
        None => match field(tree, user, "etc/group", 2)? {
            Some(gid) => gid,
            None => field(tree, user, "etc/passwd", 3)?.unwrap_or(uid),
        },
    };
    Ok(Owner { uid, gid })
}

fn id(tree: &Tree, name: &str, file: &str, what: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let missing = || format!("unable to find {what} {name}: no matching entries in /{file}");
    field(tree, name, file, 2)?.ok_or_else(missing)
}

/// A number in the row of a name.
fn field(tree: &Tree, name: &str, file: &str, nth: usize) -> Result<Option<u32>, String> {
    let text = tree.text(file, MAX_ACCOUNTS).map_err(|e| format!("reading /{file}: {e}"))?;
    let text = text.unwrap_or_default();
    let row = text.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|row| row[0] == name);
    Ok(row.and_then(|row| row.get(nth).and_then(|id| id.parse().ok())))
}

/// `--chmod`: octal, or changes such as `u=rwX,go-w`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// These bits.
    Exact(u32),
    /// Changes to a file's own.
    Changes(Vec<Change>),
}

/// One change: whose bits, what is done to them, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    who: u32,
    operator: char,
    bits: u32,
    /// `X`: execution for directories and what somebody may execute already.
    conditional: bool,
}

impl Mode {
    /// Reads up to four octal digits, or a list of changes.
    pub(crate) fn read(text: &str) -> Result<Mode, String> {
        let bad =
            || format!("`--chmod={text}`; expected an octal mode such as 755, or u=rwX,go=rX");
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Mode::Exact).ok_or_else(bad);
        }
        let changes: Option<Vec<Change>> = text.split(',').map(Change::read).collect();
        changes.map(Mode::Changes).ok_or_else(bad)
    }

    /// The mode of a file or directory that has this one.
    pub(crate) fn of(&self, own: u32, directory: bool) -> u32 {
        match self {
            Mode::Exact(mode) => *mode,
            Mode::Changes(changes) => {
                changes.iter().fold(own, |mode, change| change.apply(mode, directory))
            }
        }
    }
}

impl Change {
    fn read(text: &str) -> Option<Change> {
        let at = text.find(['+', '-', '='])?;
        let mut who = 0;
        for c in text[..at].chars() {
            who |= match c {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        let mut bits = 0;
        let mut conditional = false;
        for c in text[at + 1..].chars() {
            match c {
                'r' => bits |= 0o444,
                'w' => bits |= 0o222,
                'x' => bits |= 0o111,
                's' => bits |= 0o6000,
                't' => bits |= 0o1000,
                'X' => conditional = true,
                _ => return None,
            }
        }
        let operator = text[at..].chars().next()?;
        Some(Change { who: if who == 0 { 0o7777 } else { who }, operator, bits, conditional })
    }

    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let executes = self.conditional && (directory || mode & 0o111 != 0);
        let bits = (self.bits | if executes { 0o111 } else { 0 }) & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !(self.who & 0o777) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nnode:x:1000:1001::/home/node:/bin/sh\nlone:x:7:9::/:/bin/sh\n";
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(dir.path().join("etc/group"), "node:x:1001:\n").unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        assert_eq!(owner(&tree, "node:node"), Ok(Owner { uid: 1000, gid: 1001 }));
        assert_eq!(owner(&tree, "node"), Ok(Owner { uid: 1000, gid: 1001 }));
        assert_eq!(owner(&tree, "lone"), Ok(Owner { uid: 7, gid: 9 }));
        assert_eq!(owner(&tree, "7"), Ok(Owner { uid: 7, gid: 7 }));
        assert_eq!(owner(&tree, "7:8"), Ok(Owner { uid: 7, gid: 8 }));
        assert!(owner(&tree, "nobody").unwrap_err().contains("no matching entries in /etc/passwd"));
    }

    #[test]
    fn modes_are_exact_or_changes() {
        let mode = |text: &str, own, directory| Mode::read(text).unwrap().of(own, directory);
        for (text, own, directory, expected) in [
            ("755", 0o600, false, 0o755),
            ("4755", 0o600, false, 0o4755),
            ("u+x", 0o640, false, 0o740),
            ("+x", 0o640, false, 0o751),
            ("a+x", 0o640, false, 0o751),
            ("go-rwx", 0o777, false, 0o700),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("u=rwX,go=rX", 0o711, false, 0o755),
            ("u+s,o=", 0o755, false, 0o4750),
        ] {
            let found = mode(text, own, directory);
            assert_eq!(found, expected, "{text} of {own:o} is {found:o}");
        }
        for bad in ["77777", "99", "u", "z+x", "u+q", ""] {
            assert!(Mode::read(bad).is_err(), "{bad}");
        }
    }
}
