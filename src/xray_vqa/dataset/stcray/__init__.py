"""STCray: from the hub or from a copy on disk to what an import reads.

On the hub it is two RAR archives behind a login, and a large third one of augmented scans. Each is a tree of class
folders:

    STCray_TrainSet/Images/Class 10_Battery/Battery5_B2_L4A_C1_Loc1_phi1_th1_3.jpg
    STCray_TrainSet/Json_BB/Class 10_Battery/<same name>.json      Labelme rectangles
    STCray_TrainSet/Json/...                                       Labelme polygons
    STCray_TrainSet/Captions/Class 10_Battery/<same name>.txt

The modules in the order in which a download meets them:

    published    what the authors published: names, sizes and digests of the archives
    hub          asks the hub for them, and says what to do where it refuses
    transfer     one file over HTTP, gone on with where it stopped
    readers      what is in an archive, entry by entry (libarchive itself, bsdtar, or a tool for trusted archives)
    unpack       writes entries to disk; trusts nothing that an archive says
    names        the grammar of file and folder names
    polygons     Labelme polygons as masks
    tree         the unpacked tree as a `Source`, which dataset/importing.py turns into a dataset
"""
