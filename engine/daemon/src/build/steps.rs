//! `COPY`, `ADD`, `WORKDIR` and `ARG`.

use std::sync::Arc;

use minke_common_dockerfile::ignore::Ignore;
use minke_common_dockerfile::{Add, Arg, Source, expand};

use crate::build::apply::{self, Destination};
use crate::build::cache::Key;
use crate::build::content::{self, Item, Reading};
use crate::build::owners::{self, Mode, Owner};
use crate::build::stage::{Failure, Stage};
use crate::build::tree::Tree;
use crate::build::walk::Manner;
use crate::build::{fetch, git};

impl Stage<'_> {
    /// `ARG`: a value from the client, the file's head, the engine, or the default.
    pub(crate) fn arguments(&mut self, args: &[Arg]) -> Result<(), Failure> {
        for arg in args {
            let given = self.build.request.args.get(&arg.name).cloned();
            if given.is_some()
                && let Ok(mut consumed) = self.build.consumed.lock()
            {
                consumed.insert(arg.name.clone());
            }
            let default = arg.default.as_deref().map(|d| self.state.word(d)).transpose()?;
            let value = given
                .or(default)
                .or_else(|| self.build.plan.globals.get(&arg.name).cloned())
                .or_else(|| self.build.builtin.get(&arg.name).cloned());
            if let Some(value) = value {
                self.state.args.insert(arg.name.clone(), value);
            }
        }
        let shown = args.iter().map(|arg| match &arg.default {
            Some(default) => format!(" {}={default}", arg.name),
            None => format!(" {}", arg.name),
        });
        let text = format!("ARG{}", shown.collect::<String>());
        self.state.note(&text, false);
        Ok(())
    }

    /// `WORKDIR`: the directory is made where it is missing.
    pub(crate) async fn workdir(&mut self, path: &str) -> Result<(), Failure> {
        let path = self.state.word(path)?;
        let path = self.state.absolute(&path);
        self.state.config.config.working_dir = path.clone();
        let text = format!("WORKDIR {path}");
        let key = self.state.key.then(&text, &[], b"");
        if self.reuse(&key, &text).await? {
            return Ok(());
        }
        let lower = self.lower()?;
        let step = self.build.workspace.step().map_err(Failure::io("making a directory"))?;
        let (workspace, dirs) = (self.build.workspace.clone(), step.clone());
        let make = move || {
            let tree = workspace.open(&lower, &dirs).map_err(|e| e.to_string())?;
            let mut made = false;
            let make = tree.make_directory(&path, &mut |_| {
                made = true;
                Ok(())
            });
            make.map_err(|e| format!("making {path}: {e}"))?;
            Ok(made)
        };
        let made = self.build.blocking(make).await?;
        self.commit(key, made.then_some(step.upper.as_path()), &text).await
    }

    /// `COPY` and `ADD`.
    pub(crate) async fn copy(&mut self, add: &Add, unpacks: bool) -> Result<(), Failure> {
        let keyword = if unpacks { "ADD" } else { "COPY" };
        let dest = self.state.word_of(&add.dest, add.json)?;
        let (items, fetched) = self.items(add, unpacks).await?;
        let several = items.len() > 1 || add.sources.len() > 1;
        let directory = dest.ends_with('/') || dest.ends_with("/.") || dest == "." || dest == "..";
        if several && !directory {
            return Err(Failure::text(format!(
                "When using {keyword} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let to = Destination {
            path: self.state.absolute(&dest),
            directory: directory || several,
            parents: add.flags.parents,
        };
        let manner = self.manner(add, fetched).await?;
        let (hashed, spoken) = (items.clone(), manner.clone());
        let parents = to.parents;
        let digest =
            self.build.blocking(move || content::digest(&hashed, &spoken, parents)).await?;
        let inputs = self.inputs(add, &to, &manner)?;
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let linked = add.flags.link;
        let word = if linked { format!("{keyword} --link") } else { keyword.to_owned() };
        let key = self.state.key.then(&word, &inputs, digest.as_bytes());
        let text = self.describe(add, keyword, &dest);
        if self.reuse(&key, &text).await? {
            return Ok(());
        }
        let link = Key::base(None, "linked").then(&word, &inputs, digest.as_bytes());
        if linked && self.reuse_linked(&link, &key, &text).await? {
            return Ok(());
        }
        let slot = self.build.slot().await;
        let lower = self.lower()?;
        let step = self.build.workspace.step().map_err(Failure::io("making a directory"))?;
        let (workspace, dirs) = (self.build.workspace.clone(), step.clone());
        let write = move || {
            // A linked layer sees nothing of what is below it.
            let tree = match linked {
                true => Tree::open(&dirs.upper),
                false => workspace.open(&lower, &dirs),
            };
            apply::apply(&tree.map_err(|e| e.to_string())?, &items, &to, &manner)
        };
        self.build.blocking(write).await.map_err(|e| format!("{keyword} failed: {e}"))?;
        drop(slot);
        let before = self.state.config.rootfs.diff_ids.len();
        self.commit(key, Some(&step.upper), &text).await?;
        match linked && self.state.config.rootfs.diff_ids.len() > before {
            true => self.remember_linked(link).await,
            false => Ok(()),
        }
    }

    /// What the key of a copy holds besides the files.
    fn inputs(&self, add: &Add, to: &Destination, manner: &Manner) -> Result<Vec<String>, Failure> {
        let mut inputs = vec![
            to.path.clone(),
            format!("{} {}", to.directory, to.parents),
            format!("{:?} {} {:?}", manner.owner, manner.chown, manner.mode),
            add.flags.from.is_some().to_string(),
        ];
        // What stands for a repository in the digest says nothing of what is left out of it.
        inputs.extend(self.excluded(add)?);
        Ok(inputs)
    }

    fn describe(&self, add: &Add, keyword: &str, dest: &str) -> String {
        let sources = add.sources.iter().map(|s| match s {
            Source::Word(word) => word.clone(),
            Source::Inline(doc) => format!("<<{}", doc.name),
        });
        let from = add.flags.from.as_ref().map(|f| format!("--from={f} ")).unwrap_or_default();
        format!("{keyword} {from}{} {dest}", sources.collect::<Vec<_>>().join(" "))
    }

    /// Everything the sources name, and whether a file of it was downloaded.
    async fn items(&self, add: &Add, unpacks: bool) -> Result<(Vec<Item>, bool), Failure> {
        let tree = match &add.flags.from {
            Some(name) => self.tree_of(name).await?,
            None => self.build.context.tree.clone(),
        };
        let exclude = self.exclude(add)?;
        let keyword = if unpacks { "ADD" } else { "COPY" };
        let (mut items, mut fetched, mut left_out) = (Vec::new(), false, false);
        for source in &add.sources {
            let word = match source {
                Source::Inline(doc) => {
                    items.push(self.inline(doc)?);
                    continue;
                }
                Source::Word(word) => self.state.word_of(word, add.json)?,
            };
            if let Some(source) = git::Source::of_url(&word).filter(|_| unpacks) {
                items.push(self.clone_of(&source, &word, add).await?);
                continue;
            }
            if unpacks && fetch::is_url(&word) {
                let item = self.download(&word, add).await?;
                // What is in an archive has modes of its own.
                fetched |= item.packing.is_none();
                items.push(item);
                continue;
            }
            let (tree, exclude, parents) = (tree.clone(), exclude.clone(), add.flags.parents);
            let unpacks = unpacks && add.flags.unpack != Some(false);
            let find = move || {
                let reading = Reading { parents, exclude: &exclude };
                let mut found = content::find(&tree, &word, reading)?;
                if unpacks && let Some(found) = &mut found {
                    content::mark_archives(found)?;
                }
                Ok(found)
            };
            let found = self.build.blocking(find).await;
            let found = found.map_err(|e| format!("{keyword} failed: {e}"))?;
            left_out |= found.as_ref().is_some_and(Vec::is_empty);
            items.extend(found.into_iter().flatten());
        }
        if items.is_empty() && !left_out {
            return Err(Failure::text(format!("{keyword} failed: no source files were specified")));
        }
        Ok((items, fetched))
    }

    /// A git repository, fetched.
    async fn clone_of(&self, source: &git::Source, word: &str, add: &Add) -> Result<Item, Failure> {
        let checksum = add.flags.checksum.as_deref().map(|c| self.state.word(c)).transpose()?;
        self.output.text(&format!("Fetching {word}\n")).await;
        let slot = self.build.slot().await;
        let dir = self.build.workspace.file();
        let found = git::fetch(source, &dir, checksum.as_deref(), add.flags.keep_git_dir).await;
        drop(slot);
        let found = found.map_err(|e| format!("ADD {word}: {e}"))?;
        let tree = Tree::open(&found.path).map_err(Failure::io("opening a directory"))?;
        let known = Some(found.identity);
        Ok(Item { directory: true, known, ..Item::file(Arc::new(tree), "", "") })
    }

    /// The files of a stage or image.
    pub(crate) async fn tree_of(&self, name: &str) -> Result<Arc<Tree>, Failure> {
        let name = self.state.word(name)?;
        let lower = self.layers_of(&name).await?;
        let workspace = self.build.workspace.clone();
        let open = move || {
            let step = workspace.step().map_err(|e| e.to_string())?;
            workspace.open(&lower, &step).map_err(|e| e.to_string())
        };
        Ok(Arc::new(self.build.blocking(open).await?))
    }

    fn inline(&self, doc: &minke_common_dockerfile::Heredoc) -> Result<Item, Failure> {
        let mut text = doc.content();
        if doc.expand {
            text = expand::heredoc(&text, self.state.escape, &|name| self.state.lookup(name))
                .map_err(|e| e.to_string())?;
        }
        let dir = self.build.workspace.file();
        content::inline(&dir, &doc.name, &text).map_err(Failure::io("writing a heredoc"))
    }

    async fn download(&self, url: &str, add: &Add) -> Result<Item, Failure> {
        let dest = self.state.word_of(&add.dest, add.json)?;
        let name = fetch::name(url);
        if name.is_none() && dest.ends_with('/') {
            let text =
                format!("ADD {url}: the URL has no file name; expected a destination with one");
            return Err(Failure::text(text));
        }
        let dir = self.build.workspace.file();
        std::fs::create_dir(&dir).map_err(Failure::io("making a directory"))?;
        let checksum = add.flags.checksum.as_deref().map(|c| self.state.word(c)).transpose()?;
        self.output.text(&format!("Downloading {url}\n")).await;
        fetch::fetch(url, &dir.join("content"), checksum.as_deref()).await?;
        let tree = Tree::open(&dir).map_err(Failure::io("opening a directory"))?;
        let item = Item::file(Arc::new(tree), "content", &name.unwrap_or_default());
        if add.flags.unpack != Some(true) {
            return Ok(item);
        }
        let mark = move || {
            let mut items = [item];
            content::mark_archives(&mut items)?;
            let [item] = items;
            Ok(item)
        };
        Ok(self.build.blocking(mark).await?)
    }

    /// Owner, mode and exceptions of a copy.
    async fn manner(&self, add: &Add, fetched: bool) -> Result<Manner, Failure> {
        let flags = &add.flags;
        let mode = flags.chmod.as_deref().map(|m| self.state.word(m)).transpose()?;
        let mode = mode.map(|m| Mode::read(&m)).transpose()?;
        let from_context = flags.from.is_none();
        let owner = match &flags.chown {
            Some(chown) => Some(self.owner(&self.state.word(chown)?).await?),
            // As Docker does: root's from the context, their own from stages.
            None => from_context.then(Owner::default),
        };
        Ok(Manner {
            owner,
            chown: flags.chown.is_some(),
            mode: mode.or(fetched.then_some(Mode::Exact(0o600))),
            exclude: self.exclude(add)?,
            cancelled: self.build.workspace.cancelled.clone(),
        })
    }

    /// What `--exclude` leaves out.
    fn exclude(&self, add: &Add) -> Result<Ignore, Failure> {
        let read = Ignore::parse(&self.excluded(add)?.join("\n"));
        read.map_err(|e| Failure::text(e.to_string().replace(".dockerignore line", "--exclude")))
    }

    /// The words of `--exclude`.
    fn excluded(&self, add: &Add) -> Result<Vec<String>, String> {
        add.flags.exclude.iter().map(|pattern| self.state.word(pattern)).collect()
    }

    async fn owner(&self, text: &str) -> Result<Owner, Failure> {
        let lower = self.lower()?;
        let (workspace, text) = (self.build.workspace.clone(), text.to_owned());
        let look = move || {
            let step = workspace.step().map_err(|e| e.to_string())?;
            let tree = workspace.open(&lower, &step).map_err(|e| e.to_string())?;
            owners::owner(&tree, &text)
        };
        Ok(self.build.blocking(look).await?)
    }
}

impl crate::build::state::State {
    /// A word of `COPY` or `ADD`: those of a JSON array have variables but no quotes.
    pub(crate) fn word_of(&self, text: &str, json: bool) -> Result<String, String> {
        match json {
            false => self.word(text),
            true => expand::heredoc(text, self.escape, &|name| self.lookup(name))
                .map_err(|e| e.to_string()),
        }
    }
}
