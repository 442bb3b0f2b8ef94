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

/// Reads `user[:group]`. A user alone gives its number to the group too, as Docker documents.
pub(crate) fn owner(tree: &Tree, text: &str) -> Result<Owner, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let uid = id(tree, user, "etc/passwd", "user")?;
    let gid = match group.filter(|g| !g.is_empty()) {
        Some(group) => id(tree, group, "etc/group", "group")?,
        None => uid,
    };
    Ok(Owner { uid, gid })
}

fn id(tree: &Tree, name: &str, file: &str, what: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let text = tree.text(file, MAX_ACCOUNTS).map_err(|e| format!("reading /{file}: {e}"))?;
    let text = text.unwrap_or_default();
    let row = text.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|row| row[0] == name);
    match row.and_then(|row| row.get(2).and_then(|id| id.parse().ok())) {
        Some(id) => Ok(id),
        None => Err(format!("unable to find {what} {name}: no matching entries in /{file}")),
    }
}

/// Reads `--chmod`: up to four octal digits.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777);
    mode.ok_or_else(|| format!("`--chmod={text}`; expected an octal mode such as 755"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nnode:x:1000:1001::/home/node:/bin/sh\n";
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(dir.path().join("etc/group"), "node:x:1001:\n").unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        assert_eq!(owner(&tree, "node:node"), Ok(Owner { uid: 1000, gid: 1001 }));
        assert_eq!(owner(&tree, "node"), Ok(Owner { uid: 1000, gid: 1000 }));
        assert_eq!(owner(&tree, "7:8"), Ok(Owner { uid: 7, gid: 8 }));
        assert!(owner(&tree, "nobody").unwrap_err().contains("no matching entries in /etc/passwd"));
        assert_eq!((mode("755"), mode("4755")), (Ok(0o755), Ok(0o4755)));
        assert!(mode("u+x").is_err() && mode("77777").is_err());
    }
}
