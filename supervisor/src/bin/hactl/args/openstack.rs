//! What the verbs of `hactl openstack` take.

use super::Force;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum OpenstackVerb {
    /// What a cloud has and nobody has described, or otherwise. Changes nothing, unless `--apply` is given.
    #[command(
        after_help = "Example:\n  hactl openstack import cloud --spares trait=CUSTOM_SPARE\n  hactl openstack import cloud --spares available --document > cloud.toml\n  hactl openstack import cloud --spares trait=CUSTOM_SPARE --apply\n  hactl openstack import cloud --apply --change node/n1 --change instance/web"
    )]
    Import {
        /// The cloud: a provider of the kind `openstack`.
        provider: String,
        /// Which of its free nodes become spares: none, available, resource-class=CLASS or trait=TRAIT.
        #[arg(long, value_name = "RULE", default_value = "none")]
        spares: String,
        /// Print what is new as a document for `hactl apply -f`.
        #[arg(long, conflicts_with = "apply")]
        document: bool,
        /// Describe what is new. What is described already is not touched.
        #[arg(long)]
        apply: bool,
        /// With `--apply`: take the cloud's side of this object, too, as in node/n1 or instance/web.
        #[arg(long, value_name = "OBJECT", requires = "apply")]
        change: Vec<String>,
        #[command(flatten)]
        force: Force,
    },
    /// What is described and is other at the cloud, or gone. Exit code 1: something is.
    #[command(
        after_help = "Example:\n  hactl openstack drift cloud\n  hactl openstack drift cloud || page-somebody"
    )]
    Drift {
        /// The cloud: a provider of the kind `openstack`.
        provider: String,
    },
}
