//! What says that a verb is carried out as a tenant of a cloud.

use clap::Args;

/// As whom, if not as the context says.
#[derive(Clone, Debug, Args)]
pub(crate) struct AsTenant {
    /// Ask and order as a tenant: with the project of this cloud in clouds.yaml, as with `openstack --os-cloud`. The context says only
    /// where the members are; its certificate and token are not shown.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) os_cloud: Option<String>,
    /// With --os-cloud: which provider of the cluster that cloud is, if the cluster has several.
    #[arg(long, global = true, value_name = "PROVIDER")]
    pub(crate) os_provider: Option<String>,
}
