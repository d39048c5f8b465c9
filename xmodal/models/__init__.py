"""Plain networks: constructors take parts, `build_*` functions contain the sizes.

`ENCODERS` lists the networks that read one modality, `NETWORKS` those that read several inputs together, `BUILDERS`
the functions and classes from which a saved student is rebuilt. All values are import paths, so this file imports no
torch. A builder takes JSON values only and works under `torch.device("meta")`, where tensors have shapes but no memory:
this is how the reader of a student compares a file with the network in its description before it builds that network.
"""

# Saved students and settings contain the keys of these dictionaries, so renaming a key makes old files unreadable.
ENCODERS = {
    "linear": "xmodal.models.small:build_linear",
    "mlp": "xmodal.models.small:build_mlp",
    "relu_mlp": "xmodal.models.mlp:build_relu_mlp",
    "leaky_mlp": "xmodal.models.mlp:build_leaky_mlp",
    "sequence_cnn": "xmodal.models.small:build_sequence_cnn",
    "image_cnn": "xmodal.models.small:build_image_cnn",
    "lenet": "xmodal.models.small:build_lenet",
    "audio_cnn": "xmodal.models.small:build_audio_cnn",
    "ravdess_audio": "xmodal.models.clips.audio_video:build_ravdess_audio",
    "ravdess_image": "xmodal.models.clips.audio_video:build_ravdess_image",
    "resnet18": "xmodal.models.resnet:build_resnet18",
    "resnet34": "xmodal.models.resnet:build_resnet34",
    "resnet50": "xmodal.models.resnet:build_resnet50",
    "resnet101": "xmodal.models.resnet:build_resnet101",
    "resnet152": "xmodal.models.resnet:build_resnet152",
    "vggsound_audio": "xmodal.models.clips.vggsound:build_vggsound_audio",
    "vggsound_video": "xmodal.models.clips.vggsound:build_vggsound_video",
    "video_resnet18": "xmodal.models.clips.vggsound:build_video_resnet18",
    "video_resnet34": "xmodal.models.clips.vggsound:build_video_resnet34",
    "video_resnet50": "xmodal.models.clips.vggsound:build_video_resnet50",
    "salsanext": "xmodal.models.pixels.salsanext:build_salsanext",
    "camera_resnet10": "xmodal.models.pixels.camera_net:build_camera_resnet10",
    "camera_resnet34": "xmodal.models.pixels.camera_net:build_camera_resnet34",
    "camera_resnet50": "xmodal.models.pixels.camera_net:build_camera_resnet50",
    "camera_resnet101": "xmodal.models.pixels.camera_net:build_camera_resnet101",
    "camera_resnet152": "xmodal.models.pixels.camera_net:build_camera_resnet152",
}

NETWORKS = {
    "ddrnet": "xmodal.models.scenes.build:build_scene",
    "aicnet": "xmodal.models.scenes.build:build_scene",
    "grfnet": "xmodal.models.scenes.build:build_scene",
    "palnet": "xmodal.models.scenes.build:build_scene",
    "pmf": "xmodal.models.pixels.pmf_net:build_pmf_for",
}

BUILDERS = {
    "network": "xmodal.models.network:build_network",
    "discom": "xmodal.models.discom_net:build_branches",
    "dmd": "xmodal.models.dmd.net:build_dmd",
    "dmd_head": "xmodal.models.dmd.head:build_dmd_head",
    "pmf": "xmodal.models.pixels.pmf_net:build_pmf_net",
    "ddrnet": "xmodal.models.scenes.ddrnet:DDRNet",
    "aicnet": "xmodal.models.scenes.aicnet:AICNet",
    "grfnet": "xmodal.models.scenes.grfnet:GRFNet",
    "palnet": "xmodal.models.scenes.palnet:PALNet",
}
