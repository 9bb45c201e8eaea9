//! Settings from other nodes.

use safe_proto::settings::ClusterSettings;

use super::{Cluster, ClusterError};

impl Cluster {
    /// Merges the settings another node holds into this node's, durably; answers with what this node holds now. Waits
    /// for the disk.
    ///
    /// # Errors
    /// They are not of this cluster or not valid, or the disk refuses.
    pub fn merge_settings(&self, theirs: &str) -> Result<ClusterSettings, ClusterError> {
        let theirs = ClusterSettings::parse(theirs)?;
        let _changing = self.changing.lock();
        let joined = self.member()?;
        let own = &joined.held.settings;
        if theirs.cluster != own.cluster {
            return Err(ClusterError::Invalid(format!(
                "settings of cluster {} were offered",
                theirs.cluster
            )));
        }
        let merged = own.merge(&theirs);
        if merged == *own {
            return Ok(merged);
        }
        merged.validate()?;
        self.change_settings(&joined, merged.clone())?;
        let nodes: Vec<&str> = merged.nodes.iter().map(|node| node.name.as_str()).collect();
        let text = format!("cluster settings version {}: nodes {}", merged.version, nodes.join(", "));
        self.context.events.record("", false, &text);
        Ok(merged)
    }
}
