"""exp"""
from __future__ import annotations
import dataclasses, keras
from keras import ops
from msst_keras.model.backbones import build_backbone
from msst_keras.motion import regions
from msst_keras.motion.superpixels import SuperpixelSettings

class MotionPrior(keras.Model):
    def __init__(self, sp=SuperpixelSettings(), width=.125, stride=16, residual=True, pixels=True, norm="layer", hidden=300, feats="both"):
        super().__init__()
        self.sp=sp; self.stride=stride; self.residual=residual; self.pixels=pixels; self.feats=feats
        self.bb=build_backbone("vgg16",3,stride,width,"none","bb")
        C={"both":sum(o.shape[-1] for o in self.bb.outputs),"middle":self.bb.outputs[0].shape[-1],"last":self.bb.outputs[1].shape[-1],"none":0}[feats]+3
        self.norm=keras.layers.LayerNormalization() if norm=="layer" else None
        self.normkind=norm
        self.h=[keras.layers.Dense(hidden,"relu",kernel_initializer="he_normal") for _ in range(2)]; self.o=keras.layers.Dense(1)
    def score(self,x,training=False):
        img=regions.color_flow(x["flow"],self.residual)
        f=self.bb(img,training=training)
        f={"both":lambda:ops.concatenate(f,-1),"middle":lambda:f[0],"last":lambda:f[1],"none":lambda:f[0][...,:0]}[self.feats]()
        img=(img-127.5)/58. if self.pixels else img*0
        p,a=regions.pool_regions(img,f,self.stride,x["superpixels"],self.sp.max_regions)
        if self.norm: p=self.norm(p)
        for l in self.h: p=l(p)
        return self.o(p)[...,0],a
    def call(self,x,training=False):
        l,a=self.score(x,training)
        return regions.paint_scores(ops.sigmoid(l),x["superpixels"])
