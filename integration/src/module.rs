//! A module to be installed: `module.toml` and scripts, written to a directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::error::Result;

/// Where [`Module::note_calls`] notes, on each host.
pub const CALLS: &str = "/srv/calls";

/// A mirror module of two nodes.
#[derive(Debug, Clone)]
#[must_use]
pub struct Module {
    name: String,
    head: String,
    tail: String,
    scripts: BTreeMap<String, String>,
    directories: Vec<String>,
    directory_keys: String,
}

impl Module {
    /// A mirror module on n1 and n2 without directories, addresses or scripts.
    pub fn mirror(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            head: format!("[module]\nname = \"{name}\"\nkind = \"mirror\"\nnodes = [\"n1\", \"n2\"]\n"),
            tail: String::new(),
            scripts: BTreeMap::new(),
            directories: Vec::new(),
            directory_keys: String::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A key of the section `[module]`; the value as TOML.
    pub fn key(mut self, key: &str, value: &str) -> Self {
        self.head.push_str(&format!("{key} = {value}\n"));
        self
    }

    /// Text of `module.toml` behind the section `[module]`.
    pub fn section(mut self, text: &str) -> Self {
        self.tail.push_str(&format!("\n{}\n", text.trim()));
        self
    }

    /// A replicated directory.
    pub fn replicate(mut self, path: &str) -> Self {
        self.directories.push(path.to_owned());
        self
    }

    /// A key of all replicated directories; the value as TOML.
    pub fn directory_key(mut self, key: &str, value: &str) -> Self {
        self.directory_keys.push_str(&format!("{key} = {value}\n"));
        self
    }

    /// Its replicated directories.
    pub fn directories(&self) -> &[String] {
        &self.directories
    }

    /// A virtual address.
    pub fn address(self, ip: &str) -> Self {
        self.section(&format!("[[address]]\nip = \"{ip}\"\ninterface = \"auto\""))
    }

    /// A script of lines of shell.
    pub fn script(mut self, name: &str, lines: &str) -> Self {
        self.scripts.insert(name.to_owned(), format!("#!/bin/sh\n{}\n", lines.trim()));
        self
    }

    /// Scripts that do nothing but note their calls in the host's file [`CALLS`].
    pub fn note_calls(mut self) -> Self {
        for name in ["prestart", "start_prim", "stop_prim", "start_second", "stop_second", "poststop"] {
            self = self.script(name, &format!("echo \"{name} $*\" >>{CALLS}"));
        }
        self
    }

    /// `module.toml`.
    pub fn text(&self) -> String {
        let directories = self.directories.iter();
        let directories =
            directories.map(|path| format!("\n[[replicate]]\npath = \"{path}\"\n{}", self.directory_keys));
        format!("{}{}{}", self.head, directories.collect::<String>(), self.tail)
    }

    /// Writes it; the directory must not exist.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let scripts = directory.join("scripts");
        fs::create_dir_all(&scripts)?;
        fs::write(directory.join("module.toml"), self.text())?;
        for (name, text) in &self.scripts {
            let path = scripts.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}
