//! The context file of `hactl`: where one cluster is and who asks there, or the same for several, each with a name.
//!
//! Why it exists: whoever runs several clusters must be able to say which one is meant, and to see which one it is
//! before anything is ordered. What it never does: read a key or a token, or change anything but the choice.

use crate::client::ClientError;
use crate::document;
use crate::files;
use crate::init::Context;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A context file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextFile {
    path: PathBuf,
    text: String,
    contexts: Contexts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Contexts {
    /// As `ha-supervisord init` writes it.
    One(Box<Context>),
    /// Several, and the one that is meant if none is named.
    Named { current: Option<toml::Spanned<String>>, named: BTreeMap<String, Context> },
}

/// The form of a file with several clusters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedDocument {
    current: Option<toml::Spanned<String>>,
    #[serde(default)]
    context: BTreeMap<String, Context>,
}

/// One context as it is shown: paths, but nothing of what is in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContextDetail {
    /// Its name; absent if the file describes one cluster.
    pub name: Option<String>,
    /// It is meant if none is named.
    pub current: bool,
    /// The file.
    pub file: PathBuf,
    /// Where the members are; a password in an address is hidden.
    pub endpoints: Vec<String>,
    /// Certificate of the cluster's CA.
    pub ca: PathBuf,
    /// Client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// File that holds a token.
    pub token_file: Option<PathBuf>,
}

impl ContextFile {
    /// Reads a file of either form.
    ///
    /// # Errors
    /// [`ClientError`] with the line of the first mistake.
    pub fn load(path: &Path) -> Result<ContextFile, ClientError> {
        let text = files::read_text(path).map_err(ClientError::File)?;
        ContextFile::read(path, text)
    }

    fn read(path: &Path, text: String) -> Result<ContextFile, ClientError> {
        let file = path.display().to_string();
        let has_names = text
            .parse::<toml::Table>()
            .is_ok_and(|table| table.contains_key("context") || table.contains_key("current"));
        let contexts = match has_names {
            true => document::read(&file, &text)
                .map(|read: NamedDocument| Contexts::Named { current: read.current, named: read.context }),
            false => document::read(&file, &text).map(|one| Contexts::One(Box::new(one))),
        };
        let contexts = contexts.map_err(ClientError::Document)?;
        Ok(ContextFile { path: path.to_owned(), text, contexts })
    }

    /// The context of that name, or else the one that is meant without a name.
    ///
    /// # Errors
    /// [`ClientError::Context`], with the name that was probably meant.
    pub fn pick(&self, name: Option<&str>) -> Result<&Context, ClientError> {
        let file = self.path.display();
        let (current, named) = match (&self.contexts, name) {
            (Contexts::One(context), None) => return Ok(context),
            (Contexts::One(_), Some(name)) => {
                let why = format!(
                    "{file} describes one cluster, without a name; leave {name:?} out, or make it a file with \
                     [context.NAME] tables"
                );
                return Err(ClientError::Context(why));
            }
            (Contexts::Named { named, .. }, Some(name)) => return self.named(named, name),
            (Contexts::Named { current, named }, None) => (current, named),
        };
        match (current, named.len()) {
            (Some(current), _) => self.named(named, current.get_ref()),
            (None, 1) => named.values().next().ok_or_else(|| self.none()),
            (None, 0) => Err(self.none()),
            (None, _) => {
                let names = names(named);
                let why = format!("{file} has no `current`; say which: --cluster NAME, one of {names}");
                Err(ClientError::Context(why))
            }
        }
    }

    fn named<'a>(
        &self,
        named: &'a BTreeMap<String, Context>,
        name: &str,
    ) -> Result<&'a Context, ClientError> {
        named.get(name).ok_or_else(|| {
            let meant = match document::nearest(name, named.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {}", names(named)),
            };
            ClientError::Context(format!("{}: there is no context {name:?}; {meant}", self.path.display()))
        })
    }

    fn none(&self) -> ClientError {
        ClientError::Context(format!("{} names no context", self.path.display()))
    }

    /// All contexts of the file, by name.
    pub fn list(&self) -> Vec<ContextDetail> {
        match &self.contexts {
            Contexts::One(context) => vec![self.detail(None, true, context)],
            Contexts::Named { current, named } => named
                .iter()
                .map(|(name, context)| {
                    let is_current = match current {
                        Some(current) => current.get_ref() == name,
                        None => named.len() == 1,
                    };
                    self.detail(Some(name), is_current, context)
                })
                .collect(),
        }
    }

    /// One context of the file.
    ///
    /// # Errors
    /// As [`ContextFile::pick`].
    pub fn show(&self, name: Option<&str>) -> Result<ContextDetail, ClientError> {
        let picked = self.pick(name)?;
        let mut all = self.list().into_iter();
        let found = match name {
            Some(_) => all.find(|detail| detail.name.as_deref() == name),
            None => all.find(|detail| detail.current),
        };
        Ok(found.unwrap_or_else(|| self.detail(name, false, picked)))
    }

    fn detail(&self, name: Option<&str>, current: bool, context: &Context) -> ContextDetail {
        let dir = self.dir();
        let at = |path: &Option<PathBuf>| path.as_ref().map(|path| dir.join(path));
        ContextDetail {
            name: name.map(str::to_owned),
            current,
            file: self.path.clone(),
            endpoints: context.endpoints.iter().map(|endpoint| without_password(endpoint)).collect(),
            ca: dir.join(&context.ca),
            cert: at(&context.cert),
            key: at(&context.key),
            token_file: at(&context.token_file),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the paths of the file are relative to.
    pub fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Makes a context the one that is meant without a name. Comments and everything else in the file stay.
    ///
    /// # Errors
    /// [`ClientError`]; then the file is as it was.
    pub fn use_context(&self, name: &str) -> Result<(), ClientError> {
        self.pick(Some(name))?;
        let text = self.with_current(name)?;
        files::rewrite(&self.path, text.as_bytes()).map_err(ClientError::File)
    }

    fn with_current(&self, name: &str) -> Result<String, ClientError> {
        let value = toml::Value::String(name.to_owned()).to_string();
        let mut text = self.text.clone();
        match &self.contexts {
            Contexts::Named { current: Some(current), .. } => text.replace_range(current.span(), &value),
            // Keys of the file itself stand before its first table.
            Contexts::Named { current: None, .. } | Contexts::One(_) => {
                text.insert_str(0, &format!("current = {value}\n"));
            }
        }
        let changed = ContextFile::read(&self.path, text)?;
        match changed.pick(None)? == self.pick(Some(name))? {
            true => Ok(changed.text),
            false => Err(ClientError::Context(format!("{}: set `current` by hand", self.path.display()))),
        }
    }
}

fn names(named: &BTreeMap<String, Context>) -> String {
    named.keys().cloned().collect::<Vec<_>>().join(", ")
}

/// An address is no place for a password, but if there is one it is not shown.
fn without_password(endpoint: &str) -> String {
    match Url::parse(endpoint) {
        Ok(mut url) if url.password().is_some() => match url.set_password(Some("hidden")) {
            Ok(()) => url.to_string(),
            Err(()) => "hidden".to_owned(),
        },
        Ok(_) => endpoint.to_owned(),
        // What is no address may be a secret in the wrong place.
        Err(_) => "not an address".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const TWO: &str = "# Mine.\ncurrent = 'prod' # careful\n\n[context.prod]\nendpoints = [\"https://10.0.0.1:7201\"]\n\
                       ca = \"prod/ca.crt\"\ncert = \"prod/me.crt\"\nkey = \"prod/me.key\"\n\n[context.lab]\n\
                       endpoints = [\"https://ha:geheim@lab:7201\"]\nca = \"/lab/ca.crt\"\ntoken_file = \"lab.token\"\n";

    fn read(text: &str) -> Result<ContextFile, String> {
        ContextFile::read(Path::new("/etc/ha/hactl.toml"), text.to_owned())
            .map_err(|error| policies::causes(&error))
    }

    fn picked(text: &str, name: Option<&str>) -> Result<String, String> {
        let file = read(text)?;
        let context = file.pick(name).map_err(|error| error.to_string())?;
        Ok(context.endpoints.join(" "))
    }

    #[test]
    fn the_current_context_is_meant_unless_another_is_named() {
        assert_eq!(picked(TWO, None).unwrap(), "https://10.0.0.1:7201");
        assert_eq!(picked(TWO, Some("prod")).unwrap(), "https://10.0.0.1:7201");
        assert_eq!(picked(TWO, Some("lab")).unwrap(), "https://ha:geheim@lab:7201");
    }

    #[test]
    fn an_unknown_name_names_the_one_that_was_meant() {
        let file = "/etc/ha/hactl.toml";
        let said = |text, name| picked(text, name).unwrap_err();
        assert_eq!(
            said(TWO, Some("prd")),
            format!("{file}: there is no context \"prd\"; did you mean `prod`?")
        );
        assert_eq!(said(TWO, Some("x")), format!("{file}: there is no context \"x\"; there are: lab, prod"));
        let lost = TWO.replace("'prod'", "'prodd'");
        assert!(said(&lost, None).ends_with("did you mean `prod`?"));
        let silent = TWO.replace("current = 'prod' # careful\n", "");
        assert!(said(&silent, None).ends_with("say which: --cluster NAME, one of lab, prod"));
        assert!(said("current = \"a\"\n", None).ends_with("there is no context \"a\"; there are: "));
        let typo = TWO.replace("token_file", "token_fiel");
        assert!(said(&typo, None).ends_with("did you mean `token_file`?"), "{}", said(&typo, None));
    }

    #[test]
    fn a_file_of_one_cluster_is_what_it_always_was() {
        let one = "endpoints = [\"https://10.0.0.1:7201\"]\nca = \"ca.crt\"\n";
        assert_eq!(picked(one, None).unwrap(), "https://10.0.0.1:7201");
        assert!(picked(one, Some("prod")).unwrap_err().contains("describes one cluster, without a name"));
        let only = format!("[context.only]\n{one}");
        assert_eq!(picked(&only, None).unwrap(), "https://10.0.0.1:7201", "there is no other");
        assert!(read(&only).unwrap().list()[0].current);
        let told = read(one).unwrap().list();
        assert_eq!((told[0].name.as_deref(), told[0].ca.as_path()), (None, Path::new("/etc/ha/ca.crt")));
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let shown = read(TWO).unwrap().show(Some("lab")).unwrap();
        assert_eq!(shown.endpoints, ["https://ha:hidden@lab:7201/"]);
        assert_eq!(shown.token_file.as_deref(), Some(Path::new("/etc/ha/lab.token")));
        assert!(!shown.current);
        let misplaced = TWO.replace("https://ha:geheim@lab:7201", "hat_geheim");
        assert_eq!(read(&misplaced).unwrap().show(Some("lab")).unwrap().endpoints, ["not an address"]);
    }

    #[test]
    fn the_choice_changes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("hactl.toml"), dir.path().join("link.toml"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for (before, after) in [
            (TWO.to_owned(), TWO.replace("'prod'", "\"lab\"")),
            (TWO.replace("current = 'prod' # careful\n", ""), {
                format!("current = \"lab\"\n{}", TWO.replace("current = 'prod' # careful\n", ""))
            }),
        ] {
            std::fs::write(&path, before).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            ContextFile::load(&link).unwrap().use_context("lab").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
            assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
            let error = ContextFile::load(&path).unwrap().use_context("lba").unwrap_err();
            assert!(error.to_string().ends_with("did you mean `lab`?"));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
    }
}
