//! `hold-device ROOT ADDRESS STATE` binds a device of the host whose files are below ROOT to VFIO, with its journal in
//! STATE, and holds it until this process is killed.

use std::path::Path;

use dmarig_hostdev::Host;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, address, state] = arguments.as_slice() else {
        panic!("usage: hold-device ROOT ADDRESS STATE");
    };
    let host = Host::at(root.as_ref());
    let address = address.parse().expect("a PCI address");
    let device = host.inspect(address).expect("a device of this host");
    let bound = host.bind(&device, &[], Path::new(state)).expect("the device can be bound");
    println!("bound {bound}");
    loop {
        std::thread::park();
    }
}
