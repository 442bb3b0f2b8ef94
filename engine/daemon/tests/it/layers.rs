//! Images of many layers.

use crate::support::Site;

/// Kernels before 6.7 take the names of all layers in one page: forty of a store's own names fill it.
const LAYERS: usize = 60;

#[test]
fn an_image_of_many_layers_runs() {
    let site = Site::new();
    let copies: String = (0..LAYERS).map(|n| format!("COPY <<F /{n}\nlayer {n}\nF\n")).collect();
    let context = site.dir.path().join("many");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM busybox\n{copies}")).unwrap();
    site.docker(&["build", "-t", "many", context.to_str().unwrap()]).ok();
    let form = "{{len .RootFS.Layers}}";
    let layers = site.docker(&["image", "inspect", "-f", form, "many"]).ok();
    assert_eq!(layers.trim(), (LAYERS + 1).to_string());
    let read = format!("cat /0 /{}; echo more > /0; cat /0", LAYERS - 1);
    let said = site.docker(&["run", "--rm", "many", "sh", "-c", &read]).ok();
    assert_eq!(said, format!("layer 0\nlayer {}\nmore\n", LAYERS - 1));
}
