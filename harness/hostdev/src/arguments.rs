use crate::Binding;

/// An interface by which QEMU gets a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// `/dev/vfio/GROUP` in a container (`/dev/vfio/vfio`).
    Legacy,
    /// `/dev/iommu` with the device's own node.
    Iommufd,
}

impl Interface {
    /// Its name to users.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Iommufd => "iommufd",
        }
    }
}

/// A text that is not the name of an [`Interface`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid VFIO interface `{0}`: expected legacy or iommufd")]
pub struct UnknownInterface(pub String);

impl std::str::FromStr for Interface {
    type Err = UnknownInterface;

    fn from_str(text: &str) -> Result<Self, UnknownInterface> {
        match text {
            "legacy" => Ok(Self::Legacy),
            "iommufd" => Ok(Self::Iommufd),
            _ => Err(UnknownInterface(text.to_owned())),
        }
    }
}

/// What decides the interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    /// Whether the QEMU has the object `iommufd` (9.0 and later, where it was built in).
    pub qemu_has_iommufd: bool,
    /// What the user asked for; by default iommufd where host and QEMU have it.
    pub wanted: Option<Interface>,
}

/// The arguments by which QEMU gets the device, with these more properties of the device, each
/// `name=value` (`bus=port0`, say). They stand behind those that make the virtual IOMMU.
#[must_use]
pub fn qemu_arguments(bound: &Binding, interface: Interface, properties: &[&str]) -> Vec<String> {
    const OBJECT: &str = "iommufd0";
    let mut device = format!("vfio-pci,host={}", bound.address());
    let mut arguments = Vec::new();
    if interface == Interface::Iommufd {
        arguments.extend(["-object".to_owned(), format!("iommufd,id={OBJECT}")]);
        device.push_str(&format!(",iommufd={OBJECT}"));
    }
    for property in properties {
        device.push_str(&format!(",{property}"));
    }
    arguments.extend(["-device".to_owned(), device]);
    arguments
}
