//! Records of earlier versions, as those versions wrote them.

mod version_1;
