"""What the three papers print: their tables number by number, standard deviations where they give them.

Accuracies and precisions are in percent, areas under the curve as they are. Conditions are named by data set
(c10, c100), kind of noise, and its rate in percent; what each paper means by these, ``papers.py`` knows.
"""

# Y. Yao et al., "Jo-SRC", CVPR 2021, arXiv:2103.13029. Tables 1 (CIFAR100N-C) and 2 (CIFAR80N-O): accuracy,
# mean of the last ten of 200 epochs, and deviation over five runs.
JOSRC_1 = {"sym20": (58.15, 0.14), "sym50": (51.26, 0.11), "sym80": (23.80, 0.05), "asym40": (38.52, 0.20)}
JOSRC_2 = {"sym20": (65.83, 0.13), "sym50": (58.51, 0.08), "sym80": (29.76, 0.09), "asym40": (53.03, 0.25)}
# Table 5: precision of the ID group at the best and at the last epoch, of the OOD group likewise.
JOSRC_5 = {
    "sym20": (60.91, 42.62, 59.54, 54.38),
    "sym50": (83.86, 65.92, 40.70, 38.75),
    "sym80": (96.31, 72.84, 26.67, 24.60),
    "asym40": (45.86, 45.52, 63.97, 45.37),
}

# What they are compared with there; Jo-SRC copies those of Table 1 from JoCoR.
JOSRC_OTHERS = {
    1: {
        "decoupling": {"sym20": 33.10, "sym50": 15.25, "sym80": 3.89, "asym40": 26.11},
        "co_teaching": {"sym20": 43.73, "sym50": 34.96, "sym80": 15.15, "asym40": 28.35},
        "co_teaching_plus": {"sym20": 49.27, "sym50": 40.04, "sym80": 13.44, "asym40": 33.62},
        "jocor": {"sym20": 53.01, "sym50": 43.49, "sym80": 15.49, "asym40": 32.70},
    },
    2: {
        "decoupling": {"sym20": 43.49, "sym50": 28.22, "sym80": 10.01, "asym40": 33.74},
        "co_teaching": {"sym20": 60.38, "sym50": 52.42, "sym80": 16.59, "asym40": 42.42},
        "co_teaching_plus": {"sym20": 53.97, "sym50": 46.75, "sym80": 12.29, "asym40": 43.01},
        "jocor": {"sym20": 59.99, "sym50": 50.61, "sym80": 12.85, "asym40": 39.37},
    },
}

# D. Park et al., "INN", arXiv:2106.15185. Table 1: best AUC of clean against noisy labels over 50 to 300
# epochs, and deviation over three runs; by the loss of CE, by that of CE with negative entropy, and by INN.
INN_1 = {
    "c10-sym80": ((0.857, 0.011), (0.854, 0.012), (0.885, 0.014)),
    "c10-sym90": ((0.756, 0.015), (0.750, 0.017), (0.817, 0.018)),
    "c100-sym80": ((0.809, 0.005), (0.807, 0.015), (0.853, 0.016)),
    "c100-sym90": ((0.690, 0.009), (0.695, 0.011), (0.717, 0.013)),
    "c100-asym40": ((0.589, 0.002), (0.608, 0.003), (0.671, 0.005)),
}
# Tables 2 and D.1: best and last accuracy, each with its deviation. "dividemix" is their rerun of it.
INN_2 = {
    "c10-sym80": {"dividemix": ((92.90, 1.08), (92.71, 1.02)), "inn": ((93.48, 1.01), (93.04, 1.19))},
    "c10-sym90": {"dividemix": ((71.34, 1.43), (68.79, 1.31)), "inn": ((81.20, 1.05), (80.51, 1.05))},
    "c100-sym80": {"dividemix": ((58.26, 1.01), (57.78, 1.07)), "inn": ((59.04, 0.98), (58.81, 1.22))},
    "c100-sym90": {"dividemix": ((31.36, 0.67), (31.16, 1.21)), "inn": ((33.11, 0.82), (32.36, 0.86))},
    "c100-asym40": {"dividemix": ((59.26, 1.08), (53.79, 1.09)), "inn": ((63.04, 1.10), (59.34, 0.94))},
}
# What they are compared with there, best and last, copied from DivideMix.
INN_OTHERS = {
    "co_teaching_plus": {
        "c10-sym80": (67.4, 45.5), "c10-sym90": (47.9, 30.1),
        "c100-sym80": (27.9, 15.5), "c100-sym90": (13.7, 8.8),
    },
    "pencil": {
        "c10-sym80": (77.5, 76.5), "c10-sym90": (58.9, 58.2),
        "c100-sym80": (31.1, 20.7), "c100-sym90": (15.3, 8.8),
    },
    "m_correction": {
        "c10-sym80": (86.8, 86.6), "c10-sym90": (69.1, 68.7),
        "c100-sym80": (48.2, 47.6), "c100-sym90": (24.3, 20.5),
    },
}  # fmt: skip
# Table D.2: the same where noise is lighter, without deviations.
INN_D2 = {
    "c10-sym20": {"dividemix": (96.08, 95.68), "inn": (96.11, 95.82)},
    "c10-sym50": {"dividemix": (94.81, 94.13), "inn": (94.99, 94.83)},
}
# Table 3: two classes of CIFAR-10, counted from 1, a tenth of the second; as in Table 2.
INN_3 = {
    (1, 2): {"dividemix": ((89.23, 0.40), (82.21, 0.57)), "inn": ((92.82, 0.27), (87.75, 0.77))},
    (3, 8): {"dividemix": ((87.49, 0.68), (82.24, 1.65)), "inn": ((93.02, 0.12), (91.06, 0.18))},
    (4, 5): {"dividemix": ((79.41, 0.68), (78.35, 0.98)), "inn": ((82.82, 0.20), (82.79, 0.13))},
    (7, 9): {"dividemix": ((85.64, 0.35), (79.80, 1.92)), "inn": ((86.33, 0.45), (84.15, 0.25))},
}

# J. Li et al., "DivideMix", ICLR 2020, arXiv:2002.07394: best accuracy and mean of the last ten epochs, as
# INN copies them (Tables 2, D.1, D.2); for asymmetric noise the best alone, as VRLVMix copies it (Table II).
DIVIDEMIX = {
    "c10-sym20": (96.1, 95.7),
    "c10-sym50": (94.6, 94.4),
    "c10-sym80": (93.2, 92.9),
    "c10-sym90": (76.0, 75.4),
    "c10-asym40": (91.7,),
    "c100-sym80": (60.2, 59.6),
    "c100-sym90": (31.5, 31.0),
}

# H. Wang et al., "VRLVMix". Tables I and II: best accuracy.
VRLVMIX_1 = {"c10-sym20": 96.3, "c10-sym50": 95.8, "c10-sym80": 94.8, "c10-sym90": 92.5}
VRLVMIX_2 = {"c10-asym10": 96.4, "c10-asym30": 95.2, "c10-asym40": 94.9}
# What it is compared with there, on CIFAR-10.
VRLVMIX_OTHERS = {
    1: {
        "elr": {"c10-sym20": 95.8, "c10-sym50": 94.8, "c10-sym80": 93.3, "c10-sym90": 78.7},
        "unicon": {"c10-sym20": 96.0, "c10-sym50": 95.6, "c10-sym80": 93.9, "c10-sym90": 90.8},
        "scanmix": {"c10-sym20": 96.0, "c10-sym50": 94.5, "c10-sym80": 93.5, "c10-sym90": 91.0},
    },
    2: {
        "elr": {"c10-asym10": 95.4, "c10-asym30": 94.7, "c10-asym40": 92.0},
        "unicon": {"c10-asym10": 95.3, "c10-asym30": 94.6, "c10-asym40": 94.1},
    },
}
# Table IV: best and last accuracy of the whole and of what is left without a part.
VRLVMIX_4 = {
    "c10-asym40": {
        "no-variation": (92.74, 92.49), "no-balance": (93.67, 93.59), "no-balance-scan": (93.83, 93.55),
        "no-scan": (94.97, 94.80), "full": (94.90, 94.68),
    },
    "c10-sym80": {
        "no-variation": (92.39, 92.23), "no-balance": (92.92, 92.74), "no-balance-scan": (92.40, 92.38),
        "no-scan": (93.51, 92.89), "full": (94.83, 94.76),
    },
    "c10-sym90": {
        "no-variation": (91.82, 91.80), "no-balance": (91.59, 91.38), "no-balance-scan": (88.72, 88.39),
        "no-scan": (91.61, 91.47), "full": (92.51, 92.46),
    },
}  # fmt: skip
