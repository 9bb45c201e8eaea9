//! The lines of SEMANTICS.md on a real mount.

#[path = "semantics/content.rs"]
mod content;
#[path = "semantics/failures.rs"]
mod failures;
#[path = "semantics/names.rs"]
mod names;
#[path = "semantics/privileges.rs"]
mod privileges;
#[path = "semantics/requests.rs"]
pub(crate) mod requests;
#[path = "semantics/space.rs"]
mod space;
#[path = "semantics/temporary.rs"]
mod temporary;
#[path = "semantics/write_back.rs"]
mod write_back;
